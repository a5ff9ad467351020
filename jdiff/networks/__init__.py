"""Networks: Flax linen modules that know images, c_noise and labels, and no sigma convention.

A network is called `module.apply(variables, x [B, H, W, C], c_noise [B], labels=None,
train=False) -> F [B, H, W, C]`; what F means is its preconditioning's business, whose default is
the class attribute `preconditioning`. Two modules with equal options are equal and hash alike.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdiff import _check, _flops
from jdiff.networks.bottleneck_mlp import BottleneckMLP
from jdiff.networks.mlp import MLP
from jdiff.networks.unet import UNet

__all__ = [
    "MLP",
    "NETWORKS",
    "BottleneckMLP",
    "UNet",
    "create",
    "flops_per_image",
    "init",
    "num_params",
    "option_types",
]

NETWORKS: dict[str, Any] = {"bottleneck_mlp": BottleneckMLP, "mlp": MLP, "unet": UNet}


def create(name: str, image_shape: Sequence[int], **options: Any) -> nn.Module:
    """The network `name` for images of one shape, every option checked.

    Options left out have the class's defaults, except those that depend on the image: the UNet's
    levels (and width) shrink with small images, the bottleneck MLP is small for points.

    Args:
      name: a key of `NETWORKS`.
      image_shape: (H, W, C).
      **options: fields of the class, see `option_types(name)`.

    Returns:
      The linen module.

    Raises:
      TypeError: if an option has the wrong type.
      ValueError: on an unknown name or option (close matches and all accepted ones are listed),
        a value out of range, or a network that images of this shape do not allow.

    Example:
      >>> create("unet", (28, 28, 1), width=16).levels
      3
    """
    cls = NETWORKS[_check.choice("network", name, NETWORKS)]
    shape = _check.image_shape("image_shape", image_shape)
    _check.options(f"option of {name}", options, option_types(name))
    module = cls(**{**cls.image_defaults(shape), **options})
    module.check_image(shape)
    return module


def option_types(name: str) -> dict[str, type]:
    """The options of a network and their types, None left aside: int, bool, float or str.

    Example:
      >>> option_types("mlp")["num_classes"]
      <class 'int'>
    """
    cls = NETWORKS[_check.choice("network", name, NETWORKS)]
    # Every linen module has the fields parent and name, which are no options.
    fields = [f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]
    hints = typing.get_type_hints(cls)
    return {field: _without_none(hints[field]) for field in fields}


def init(module: nn.Module, key: jax.Array, image_shape: Sequence[int]) -> Any:
    """Fresh variables of a network, {"params": ...}; compiled once a module and shape.

    Raises:
      TypeError: if `key` is not a typed threefry key.
    """
    shape = _check.image_shape("image_shape", image_shape)
    return _init(module, shape, _check.key("key", key))


def num_params(module: nn.Module, image_shape: Sequence[int]) -> int:
    """The number of trained parameters; nothing is computed."""
    variables = _abstract_variables(module, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))


def flops_per_image(module: nn.Module, image_shape: Sequence[int]) -> int:
    """FLOPs of one forward pass on one image: its convolutions and matmuls, 2 a multiply-add."""
    variables = _abstract_variables(module, image_shape)
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    c_noise = jax.ShapeDtypeStruct((1,), jnp.float32)
    return _flops.count(module.apply, variables, x, c_noise)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _init(module: nn.Module, image_shape: tuple[int, int, int], key: jax.Array) -> Any:
    # Under jit the forward pass, which init needs for its shapes only, is never run.
    return module.init(key, jnp.zeros((1, *image_shape), jnp.float32), jnp.zeros(1, jnp.float32))


def _abstract_variables(module: nn.Module, image_shape: Sequence[int]) -> Any:
    shape = _check.image_shape("image_shape", image_shape)
    return jax.eval_shape(lambda: _init(module, shape, jax.random.key(0)))


def _without_none(annotation: Any) -> type:
    if isinstance(annotation, types.UnionType):
        (annotation,) = (a for a in typing.get_args(annotation) if a is not type(None))
    return annotation
