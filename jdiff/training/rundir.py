"""The files of one run: config.json, which says what it is, and metrics.jsonl, its history.

A run directory belongs to one configuration. Opened with another it is refused, the difference
named and nothing touched; opened with the same one it goes on where its last checkpoint stands.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jdiff import _files

SCHEMA = 1


class RunDirectory:
    """A directory that holds one run."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._config = self.path / "config.json"
        self._metrics = self.path / "metrics.jsonl"

    def claim(self, config: dict) -> None:
        """Makes the directory the run of `config`, or checks that it is.

        Raises:
          ValueError: if it belongs to another configuration, naming the differences, or holds
            files but no config.json.
        """
        config = _files.plain({"schema": SCHEMA, **config})
        if not self._config.exists():
            if holds_files(self.path):
                raise ValueError(
                    f"run_dir {self.path} holds files but no config.json, so it is not a run; "
                    "choose an empty or new directory."
                )
            _files.write_json(self._config, config)
            return
        different = differences(self.config(), config)
        if different:
            raise ValueError(
                f"run_dir {self.path} belongs to another configuration: {'; '.join(different)}. "
                "Choose another directory; nothing was changed."
            )

    def config(self) -> dict:
        """What config.json says.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if it cannot be read or is of another schema.
        """
        if not self._config.exists():
            inside = sorted(str(run) for run in self.path.glob("runs/*/"))
            hint = f" It holds {', '.join(inside[:6])}." if inside else ""
            raise FileNotFoundError(
                f"run_dir {self.path} is not a run: it has no config.json.{hint}"
            )
        config = _files.read_object(self._config)
        if config.get("schema") != SCHEMA:
            raise ValueError(
                f"{self._config} has schema {config.get('schema')}; this version reads {SCHEMA}."
            )
        return config

    def append(self, lines: Iterable[dict]) -> None:
        """Adds lines to metrics.jsonl."""
        with open(self._metrics, "a") as file:
            file.writelines(json.dumps(_files.plain(line)) + "\n" for line in lines)

    def cut_back(self, step: int) -> None:
        """Drops from metrics.jsonl what came after `step` steps, and a line half written."""
        self.replace([line for line in self.lines() if _within(line, step)])

    def replace(self, lines: Iterable[dict]) -> None:
        """Writes metrics.jsonl anew."""
        text = "".join(json.dumps(_files.plain(line)) + "\n" for line in lines)
        _files.write_text(self._metrics, text)

    def lines(self) -> list[dict]:
        """The lines of metrics.jsonl, without one that a kill cut off."""
        found = []
        if self._metrics.exists():
            for text in self._metrics.read_text().splitlines():
                try:
                    found.append(json.loads(text))
                except json.JSONDecodeError:
                    break
        return found


def holds_files(path: Path) -> bool:
    """Whether a directory is there and holds more than half-written files that a kill left."""
    # Those start with a dot: see _files.write.
    return path.exists() and any(not entry.name.startswith(".") for entry in path.iterdir())


def as_arrays(lines: Iterable[dict]) -> dict[str, np.ndarray]:
    """Metrics lines as arrays: step, loss, held_out_step, held_out_loss."""
    lines = list(lines)
    losses = [line for line in lines if "loss" in line]
    held_out = [line for line in lines if "held_out_loss" in line]
    column = lambda rows, name, dtype: np.array([row[name] for row in rows], dtype)
    return {
        "step": column(losses, "step", np.int64),
        "loss": column(losses, "loss", np.float64),
        "held_out_step": column(held_out, "step", np.int64),
        "held_out_loss": column(held_out, "held_out_loss", np.float64),
    }


def describe_module(module: nn.Module) -> dict[str, Any]:
    """A linen module as config.json names it: its class and its options."""
    options = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name")
    }
    kind = type(module)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "options": {k: v if _is_plain(v) else _name(v) for k, v in options.items()},
    }


def describe_key(key: jax.Array) -> list[int]:
    """A typed key as config.json holds it."""
    return np.asarray(jax.random.key_data(key)).tolist()


def _name(value: Any) -> str:
    """A function, a dtype or another object in words that are the same in every process."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return value is None or isinstance(value, str | int | float | bool)


def _within(line: dict, step: int) -> bool:
    # A loss names the number of its step, from 0; a held-out loss the steps done before it.
    return line["step"] + ("loss" in line) <= step


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, a phrase each, entries named by their dotted path."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            inner = f"{name}.{key}" if name else key
            found += differences(old.get(key), new.get(key), inner)
        return found
    return [] if old == new else [f"{name} is {old!r} there and {new!r} here"]
