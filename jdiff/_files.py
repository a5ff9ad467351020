"""Files written whole, then renamed: a reader never finds half of one."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np


def write(path: str | os.PathLike, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes what `fill(file)` puts into a binary file; an error leaves the old file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        # mkstemp makes files that only their owner can read; results are meant to be shared.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON with NumPy numbers and arrays as plain ones, and NaN and infinity as null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def write_arrays(path: str | os.PathLike, **arrays: Any) -> None:
    """Writes a compressed npz; entries that are None are left out."""
    kept = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **kept))


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads an npz whole."""
    # Opened here: np.load leaves a damaged file open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def plain(value: Any) -> Any:
    """A value of dicts, sequences, NumPy and Python numbers as JSON can hold it."""
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
