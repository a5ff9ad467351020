"""Fitted and trained denoisers on disk, and back.

A closed form is its arrays (denoiser.npz) and its class, shapes and names (config.json); it loads
without the data it was fitted to. A network is its training run.
"""

import dataclasses
import os
import zlib
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _files, networks
from jdiff.denoisers import (
    BottleneckDenoiser,
    Denoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    OptimalDenoiser,
    PatchPolynomialDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
)
from jdiff.denoisers.posterior import Bank
from jdiff.training.levels import KIND as LEVELS
from jdiff.training.restore import restore, restore_levels
from jdiff.training.rundir import RunDirectory

_FORMS = (
    OptimalDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    EquivariantLinearDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
    PatchPolynomialDenoiser,
    BottleneckDenoiser,
)
# What can stand in a saved closed form.
_CLASSES = {cls.__name__: cls for cls in (*_FORMS, Bank)}
_ARRAYS = "denoiser.npz"


def save(run_dir: str | os.PathLike, denoiser: Denoiser, config: dict | None = None) -> None:
    """Writes a closed form as a run directory.

    Args:
      run_dir: a new or empty directory, or one of the same configuration.
      denoiser: a fitted closed form.
      config: what else config.json should say of it.

    Raises:
      TypeError: on a denoiser that is not one of the closed forms.
      ValueError: on one whose training set is split over devices, or if the directory belongs to
        something else.
    """
    if not isinstance(denoiser, _FORMS):
        raise TypeError(
            f"denoiser must be one of {', '.join(form.__name__ for form in _FORMS)} (networks are "
            f"saved by jdiff.train(run_dir=...)); got {type(denoiser).__name__}."
        )
    sets = [getattr(denoiser, name) for name in getattr(denoiser, "sharded_fields", ())]
    if any(held is not None and held.mesh is not None for held in sets):
        raise ValueError(
            "denoiser must hold its training set whole; got one that jdiff.parallel.shard has "
            "split over devices. Save the denoiser that was given to shard, and shard it again "
            "when it is loaded."
        )
    arrays: dict[str, np.ndarray] = {}
    form = _take_apart(denoiser, "", arrays)
    RunDirectory(run_dir).claim({"kind": "closed_form", "form": form, **(config or {})})
    _files.write_arrays(Path(run_dir) / _ARRAYS, **arrays)


def load(run_dir: str | os.PathLike, *, network: nn.Module | None = None) -> Denoiser:
    """Gives back a fitted or trained denoiser.

    Args:
      run_dir: a run directory, as `jdiff.train(run_dir=...)`, `jdiff train` or a study makes them.
      network: the module that was trained, needed where it is not one of jdiff's own.

    Returns:
      A closed form as fitted, or the network with the averaged weights of its newest checkpoint.

    Raises:
      FileNotFoundError: if it is no run, or has no checkpoint yet.
      ValueError: if its files are damaged, of another schema, or of another network.
    """
    run = RunDirectory(run_dir)
    config = run.config()
    kind = _check.choice(
        "kind in config.json", config.get("kind"), ("closed_form", "network", LEVELS)
    )
    wanted = (
        ("form",) if kind == "closed_form" else ("architecture", "train", "data", "image_shape")
    )
    wanted += ("sigmas",) if kind == LEVELS else ()
    lacking = [name for name in wanted if name not in config]
    if lacking:
        raise ValueError(f"{run.path / 'config.json'} is damaged: it lacks {', '.join(lacking)}.")
    if kind != "closed_form":
        network = _module(config["architecture"]) if network is None else network
        return (restore_levels if kind == LEVELS else restore)(run_dir, network)
    path = run.path / _ARRAYS
    try:
        arrays = _files.read_arrays(path)
        return _put_together(config["form"], "", arrays)
    except FileNotFoundError:
        raise FileNotFoundError(f"run_dir {run.path} has no {_ARRAYS} yet.") from None
    except Exception as error:  # zip, NumPy and key errors: the file is not what was written
        raise ValueError(f"{path} is damaged: {error}") from error


def _module(architecture: dict) -> nn.Module:
    """One of jdiff's networks from its class and options."""
    for cls in networks.NETWORKS.values():
        if f"{cls.__module__}.{cls.__qualname__}" == architecture["class"]:
            # JSON has lists where the module has tuples.
            options = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in architecture["options"].items()
            }
            return cls(**options)
    raise ValueError(
        f"network must be given: the run's class {architecture['class']} is not one of jdiff's "
        f"own ({', '.join(networks.NETWORKS)})."
    )


def _take_apart(node: Any, prefix: str, arrays: dict[str, np.ndarray]) -> dict:
    """A pytree class as JSON; its arrays go into `arrays` under dotted names."""
    form: dict[str, Any] = {"class": type(node).__name__}
    for field in dataclasses.fields(node):
        form[field.name] = _describe(getattr(node, field.name), f"{prefix}{field.name}", arrays)
    return form


def _describe(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A field as JSON: a nested class, an array, a tuple of these, or what is JSON already."""
    if isinstance(value, flax.struct.PyTreeNode):
        return _take_apart(value, f"{name}.", arrays)
    if hasattr(value, "dtype"):
        arrays[name] = np.asarray(value)
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes())
        return {"array": list(value.shape), "crc32": crc}
    if isinstance(value, tuple) and any(hasattr(item, "dtype") for item in value):
        return {"items": [_describe(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    return value


def _put_together(form: dict, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    fields = {
        name: _remake(value, prefix + name, arrays)
        for name, value in form.items()
        if name != "class"
    }
    return _CLASSES[form["class"]](**fields)


def _remake(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A field from its JSON."""
    if isinstance(value, dict) and "array" in value:
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes())
        if crc != value["crc32"]:
            raise ValueError(f"{name} is not the array that config.json was written with.")
        return jnp.asarray(arrays[name])
    if isinstance(value, dict) and "items" in value:
        return tuple(_remake(v, f"{name}.{i}", arrays) for i, v in enumerate(value["items"]))
    if isinstance(value, dict):
        return _put_together(value, f"{name}.", arrays)
    return tuple(value) if isinstance(value, list) else value
