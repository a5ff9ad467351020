"""Work in a process of its own, whose memory is its own."""

import os
import subprocess
import sys
from pathlib import Path

# What would make a child do something else than is written: tiny budgets, another's cache.
_NOT_PASSED = ("JDIFF_BUDGET", "JAX_COMPILATION_CACHE_DIR")


def environment() -> dict[str, str]:
    """This process's, with the checkout on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
    root, found = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")
    return kept | {"PYTHONPATH": root if found is None else f"{root}:{found}"}


def run(code: str, *arguments: str) -> str:
    """What a Python program prints.

    Raises:
      RuntimeError: if it fails, with the end of what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def numbers(code: str, count: int) -> list[float]:
    """The last `count` numbers that a Python program prints; a RuntimeError if it fails."""
    return [float(word) for word in run(code).split()[-count:]]
