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


def read_object(path: str | os.PathLike, **kinds: type) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
      path: the file.
      **kinds: entries that it must have, by name, and what each must be: dict, list, int or str.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is no JSON, no object, or lacks an entry, naming the file.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{path} is damaged: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it must hold an object; got {_shown(found)}.")
    for name, kind in kinds.items():
        if name not in found:
            raise ValueError(f"{path} is damaged: it lacks {name!r}.")
        if not isinstance(found[name], kind):
            wanted = _KINDS[kind]
            raise ValueError(
                f"{path} is damaged: {name!r} must be {wanted}; got {_shown(found[name])}."
            )
    return found


_KINDS = {dict: "an object", list: "a list", int: "a whole number", str: "a text"}


def _shown(value: Any) -> str:
    """A JSON value as the file spells it, the head of it if it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def refuse_file(name: str, path: str | os.PathLike) -> None:
    """Refuses a path to a directory that is a file, or leads through one.

    Raises:
      ValueError: naming the argument and the file.
    """
    for part in (Path(path), *Path(path).parents):
        if part.exists() and not part.is_dir():
            raise ValueError(f"{name} {path} must be a directory; {part} is a file.")


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
