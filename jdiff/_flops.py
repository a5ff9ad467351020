"""FLOPs of a function, counted from the convolutions and matmuls of its jaxpr.

A multiply-add counts as two. Scans count their body once a step, a `cond` its dearest branch, a
`while` with an unknown trip count its body once. Elementwise work is left out, as is usual for
model FLOPs. XLA's own cost analysis counts a scanned body once and misses library calls on GPUs.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp


def count(function: Callable, *args: Any) -> int:
    """FLOPs of `function(*args)`; `args` may be arrays or jax.ShapeDtypeStruct."""
    return sum(flops for _, flops in _contractions(jax.make_jaxpr(function)(*args).jaxpr))


def has_convolution(function: Callable, *args: Any) -> bool:
    """Whether `function(*args)` runs a convolution anywhere."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return any(name == "conv_general_dilated" for name, _ in _contractions(jaxpr))


def signature(tree: Any) -> tuple[Any, tuple]:
    """A tree's structure and its leaves' shapes and types, which jit compiles for; hashable."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def count_denoiser(denoiser: Any, image_shape: tuple) -> int:
    """FLOPs of a denoiser's call on one image [H, W, C]."""
    return count(lambda d, *args: d(*args), denoiser, *_arguments(image_shape))


def denoiser_has_convolution(denoiser: Any, image_shape: tuple, *more: Any) -> bool:
    """Whether a denoiser of images [H, W, C] runs convolutions, which want other compiler options.

    One of each signature is traced, since a trace a call would be slow. `more` is what it is called
    with beside y and sigma: None or jax.ShapeDtypeStruct.
    """
    return _denoiser_has_convolution(signature(denoiser), image_shape, more)


@functools.lru_cache(maxsize=256)
def _denoiser_has_convolution(signed: tuple, image_shape: tuple, more: tuple) -> bool:
    structure, shapes = signed
    denoiser = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    return has_convolution(lambda d, *args: d(*args), denoiser, *_arguments(image_shape), *more)


def _arguments(image_shape: tuple) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The y and sigma that a denoiser is called with, of one image."""
    y = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return y, jax.ShapeDtypeStruct((), jnp.float32)


def _contractions(jaxpr: Any) -> Iterator[tuple[str, int]]:
    """Yields (primitive name, FLOPs) for each contraction, those in inner jaxprs scaled."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            yield name, _dot_flops(eqn)
        elif name == "conv_general_dilated":
            yield name, _conv_flops(eqn)
        elif name == "cond":
            branches = [list(_contractions(b.jaxpr)) for b in eqn.params["branches"]]
            yield from max(branches, key=lambda found: sum(flops for _, flops in found))
        else:
            times = eqn.params["length"] if name == "scan" else 1
            for inner in _inner_jaxprs(eqn.params):
                for inner_name, flops in _contractions(inner):
                    yield inner_name, times * flops


def _inner_jaxprs(params: dict) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                yield item.jaxpr


def _dot_flops(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contracted)


def _conv_flops(eqn: Any) -> int:
    # Each output element is a sum over the kernel's taps and its input channels. An input spread
    # by zeros (the gradient of a strided convolution) meets only one tap in prod(dilation).
    kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
    per_output = math.prod(kernel) // kernel[spec[0]]
    spread = math.prod(eqn.params["lhs_dilation"])
    return 2 * math.prod(eqn.outvars[0].aval.shape) * per_output // spread
