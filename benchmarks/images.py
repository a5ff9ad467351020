"""The data set that `--data` names, read once for all suites of a call."""

import functools
from pathlib import Path

import jdiff


@functools.lru_cache(maxsize=2)
def load(spec: str, data_dir: Path | None) -> jdiff.data.ImageData:
    """As `jdiff.data.load`; nobody writes into what it gives."""
    return jdiff.data.load(spec, data_dir=data_dir)
