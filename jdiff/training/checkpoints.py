"""Checkpoints of a training run: saved in the background, checked when read, damaged ones skipped.

Orbax writes them (asynchronously, the newest three are kept). It restores a flipped bit in silence,
so each checkpoint carries a checksum of every array, and one that does not match is named and the
one before it used.
"""

import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

_KEPT = 3


class Checkpoints:
    """The checkpoints of one run under a path; closed by `close`, which waits for the last save."""

    def __init__(self, path: str | os.PathLike):
        import orbax.checkpoint as ocp  # a second to import: only when checkpoints are wanted

        self._ocp = ocp
        self._path = Path(path).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=True)
        self._manager = ocp.CheckpointManager(self._path, options=options)

    def steps(self) -> list[int]:
        """The steps at which there are checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any) -> None:
        """Starts saving a tree of host arrays.

        Raises:
          Exception: what an earlier save failed with in the background.
        """
        self._manager.check_for_errors()
        ocp = self._ocp
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(tree), checksums=ocp.args.JsonSave(_checksums(tree))
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest undamaged checkpoint, or None if there is none.

        A damaged one is named in a warning, removed, and the one before it tried.

        Args:
          like: a tree of host arrays of the wanted structure, shapes and dtypes.

        Returns:
          (step, tree of host arrays).
        """
        for step in reversed(self.steps()):
            try:
                tree = self._read(step, like)
            except Exception as error:  # orbax raises many kinds for the many ways to be damaged
                warnings.warn(
                    f"checkpoint {self._path / str(step)} is damaged ({_first_line(error)}); "
                    "using the one before it.",
                    stacklevel=2,
                )
                self._manager.delete(step)
            else:
                return step, tree
        return None

    def close(self) -> None:
        """Waits for the last save; raises what it failed with."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        finally:
            self._manager.close()

    def _read(self, step: int, like: Any) -> Any:
        ocp = self._ocp
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(like), checksums=ocp.args.JsonRestore()
        )
        read = self._manager.restore(step, args=items)
        tree = jax.tree.map(np.asarray, read["state"])
        found = _checksums(tree)
        wrong = [name for name, value in read["checksums"].items() if found.get(name) != value]
        if wrong or len(found) != len(read["checksums"]):
            raise ValueError(f"checksum of {', '.join(wrong) or 'its arrays'} does not match")
        return tree


def _checksums(tree: Any) -> dict[str, int]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf).tobytes())
        for path, leaf in leaves
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
