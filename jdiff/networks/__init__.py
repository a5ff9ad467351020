"""Networks: Flax linen modules that know images, c_noise and labels, and no sigma convention.

A network is called `module.apply(variables, x [B, H, W, C], c_noise [B], labels=None,
train=False) -> F [B, H, W, C]`; what F means is its preconditioning's business, whose default is
the class attribute `preconditioning`. Two modules with equal options are equal and hash alike.

With train=True networks with dropout draw from rngs={"dropout": key}, and networks with batch
normalisation take the batch's moments and write running ones to the collection "batch_stats", which
must be mutable; without, both are functions of their arguments alone.
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
from jdiff.networks.paper_unet import PaperUNet
from jdiff.networks.resnet import ResNet
from jdiff.networks.unet import UNet

__all__ = [
    "MLP",
    "NETWORKS",
    "PRESETS",
    "BottleneckMLP",
    "PaperUNet",
    "ResNet",
    "UNet",
    "create",
    "flops_per_image",
    "init",
    "num_params",
    "option_types",
    "receptive_field",
    "register",
]

NETWORKS: dict[str, Any] = {
    "bottleneck_mlp": BottleneckMLP,
    "mlp": MLP,
    "paper_unet": PaperUNet,
    "resnet": ResNet,
    "unet": UNet,
}

# Networks of one of these classes under a name of their own: name -> (class's name, options).
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    # The UNet of Kamb & Ganguli 2025: 64, 128 and 256 channels, two convolutions a block, ReLU, no
    # normalisation. Theirs pools by maxima, its last convolution is a third, 1x1, and it predicts
    # the noise (preconditioning=eps), where this class has x0 unless told otherwise.
    "kamb_unet": (
        "paper_unet",
        {"width": 64, "levels": 2, "norm": "none", "biases": True, "time": True},
    ),
}


def create(name: str, image_shape: Sequence[int], **options: Any) -> nn.Module:
    """The network `name` for images of one shape, every option checked.

    Options left out have the class's defaults, except those that depend on the image: the UNet's
    levels (and width) shrink with small images, the bottleneck MLP is small for points.

    Args:
      name: a key of `NETWORKS` or `PRESETS`.
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
    cls, preset = _class_and_preset(name)
    shape = _check.image_shape("image_shape", image_shape)
    accepted = option_types(name)
    _check.options(f"option of {name}", options, accepted)
    options = {k: _check.as_tuple(v) if accepted[k] is tuple else v for k, v in options.items()}
    image_defaults = getattr(cls, "image_defaults", lambda image_shape: {})
    module = cls(**{**image_defaults(shape), **preset, **options})
    getattr(module, "check_image", lambda image_shape: None)(shape)
    return module


def register(name: str, cls: type[nn.Module]) -> None:
    """Gives a linen class of yours a name, by which studies, `create` and strings know it.

    Its fields are the options of a string such as `name:width=64`. It may say what suits an image
    and what does not, as jdiff's own do: a static method `image_defaults(image_shape)` that returns
    options, a method `check_image(image_shape)` that raises ValueError. Names live as long as the
    process: another one registers again before it loads a run by that name.

    Args:
      name: an identifier that no network or preset has, unless for this very class.
      cls: a subclass of flax.linen.Module, called as all networks are (see the head of this file).

    Raises:
      TypeError: if `cls` is no class of linen modules.
      ValueError: on a name that is taken or no identifier.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"cls must be a subclass of flax.linen.Module; got {cls!r}.")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"name must be an identifier, such as my_network; got {name!r}.")
    reserved = sorted({"preconditioning", "per_level"} & {f.name for f in dataclasses.fields(cls)})
    if reserved:
        raise ValueError(
            f"cls must have no field {' or '.join(reserved)}: every network has that option (the "
            "default preconditioning is a plain class attribute)."
        )
    known = NETWORKS.get(name, cls)
    same = (known.__module__, known.__qualname__) == (cls.__module__, cls.__qualname__)
    if name in PRESETS or not same:  # a class defined again, as in a notebook, is the same
        raise ValueError(f"name {name!r} is taken; taken are {', '.join([*NETWORKS, *PRESETS])}.")
    NETWORKS[name] = cls


def option_types(name: str) -> dict[str, type]:
    """The options of a network and their types, None left aside: int, bool, float, str or tuple.

    An option of type tuple also takes one number, or text that joins numbers, as in "1+2".

    Example:
      >>> option_types("mlp")["num_classes"]
      <class 'int'>
    """
    cls, _ = _class_and_preset(name)
    # Every linen module has the fields parent and name, which are no options.
    fields = [f.name for f in dataclasses.fields(cls) if f.name not in ("parent", "name")]
    hints = typing.get_type_hints(cls)
    return {field: _plain_type(hints[field]) for field in fields}


def init(module: nn.Module, key: jax.Array, image_shape: Sequence[int]) -> Any:
    """Fresh variables of a network, {"params": ...} and, where it has them, {"batch_stats": ...}.

    Compiled once a module and shape.

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
    return _flops_per_image(module, _check.image_shape("image_shape", image_shape))


def receptive_field(module: nn.Module, image_shape: Sequence[int]) -> int | None:
    """The side of the smallest centred square that holds all that an output pixel depends on.

    The largest over output pixels, counted from the structure of the network at evaluation, and no
    more than the image's own side: with that, a pixel in the middle sees the whole image. Group
    norm, attention and dense layers make every pixel see all of it.

    Returns:
      The side in pixels; None for a module that has no method `receptive_field`.

    Example:
      >>> receptive_field(create("resnet", (32, 32, 3), depth=2), (32, 32, 3))
      7
    """
    shape = _check.image_shape("image_shape", image_shape)
    method = getattr(module, "receptive_field", None)
    return None if method is None else method(shape)


@functools.lru_cache(maxsize=256)  # a network is traced for it, and studies ask for every row
def _flops_per_image(module: nn.Module, image_shape: tuple[int, int, int]) -> int:
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


def _class_and_preset(name: str) -> tuple[Any, dict[str, Any]]:
    _check.choice("network", name, [*NETWORKS, *PRESETS])
    class_name, preset = PRESETS.get(name, (name, {}))
    return NETWORKS[class_name], preset


def _plain_type(annotation: Any) -> type:
    if isinstance(annotation, types.UnionType):
        kinds = [a for a in typing.get_args(annotation) if a is not type(None)]
        annotation = kinds[0] if len(kinds) == 1 else object  # of several, the class must check
    plain = typing.get_origin(annotation) or annotation
    return tuple if plain in (Sequence, list) else plain  # modules must be hashable
