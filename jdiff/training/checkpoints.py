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

    def __init__(self, path: str | os.PathLike, *, read_only: bool = False):
        import orbax.checkpoint as ocp  # a second to import: only when checkpoints are wanted

        self._ocp = ocp
        self._path = Path(path).absolute()
        self._read_only = read_only
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=not read_only)
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

        A damaged one is named in a warning and the one before it tried; unless opened read-only,
        it is moved aside (to damaged-STEP beside the others), as its step will be saved again.

        Args:
          like: a tree of host arrays of the wanted structure, shapes and dtypes.

        Returns:
          (step, tree of host arrays).

        Raises:
          ValueError: if a checkpoint is whole but of another structure: nothing is touched.
        """
        for step in reversed(self.steps()):
            try:
                checksums = self._read(step, checksums=self._ocp.args.JsonRestore())["checksums"]
            except Exception as error:  # orbax raises many kinds for the many ways to be damaged
                self._skip(step, error)
                continue
            self._check_structure(step, checksums, like)
            try:
                read = self._read(step, state=self._ocp.args.StandardRestore(like))["state"]
                tree = jax.tree.map(np.asarray, read)
                wrong = [
                    name for name, value in _checksums(tree).items() if checksums[name] != value
                ]
                if wrong:
                    raise ValueError(f"checksum of {', '.join(wrong[:3])} does not match")
            except Exception as error:
                self._skip(step, error)
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

    def _read(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=self._ocp.args.Composite(**items))

    def _check_structure(self, step: int, found: dict, like: Any) -> None:
        wanted = _checksums(like)
        strange = sorted(set(found) ^ set(wanted)) or [
            name for name, value in wanted.items() if found[name][1:] != value[1:]
        ]
        if strange:
            raise ValueError(
                f"checkpoint {self._path / str(step)} is of another network or optimizer: they "
                f"differ in {', '.join(strange[:3])}. Nothing was changed."
            )

    def _skip(self, step: int, error: Exception) -> None:
        warnings.warn(
            f"checkpoint {self._path / str(step)} is damaged ({_first_line(error)}); "
            "using the one before it.",
            stacklevel=3,
        )
        if not self._read_only:
            os.replace(self._path / str(step), self._path / f"damaged-{step}")
            self._manager.reload()


def _checksums(tree: Any) -> dict[str, list]:
    """[crc32, dtype, shape] of every array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): [
            zlib.crc32(np.ascontiguousarray(leaf).tobytes()),
            str(leaf.dtype),
            list(leaf.shape),
        ]
        for path, leaf in leaves
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
