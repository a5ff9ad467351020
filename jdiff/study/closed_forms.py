"""Closed forms by name: how a string such as `bottleneck:code_dim=8` is fitted.

One table. What a form needs to know of a study is the grid (some are another function at every
level) and a seed (some draw random features).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdiff import _check, noise
from jdiff.data import ImageData
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
    axes,
)


@dataclasses.dataclass(frozen=True)
class ClosedForm:
    """A closed form as strings name it.

    Attributes:
      fit: (data, grid [T + 1], seed, **options) -> denoiser.
      options: what a string may give.
      needed: which of them it must give.
      check: (data, **options) refuses, without the work of a fit, what could not be fitted.
    """

    fit: Callable[..., Denoiser]
    options: tuple[str, ...]
    needed: tuple[str, ...] = ()
    check: Callable[..., None] = lambda data, **options: None


def shrinking_windows(num_levels: int, image_shape: tuple[int, int, int]) -> list[int | None]:
    """A window for every level, from the whole image (None) down to 3 pixels.

    Odd sides evenly spaced from the image's to 3, as the published ten are for 64 pixels.

    Example:
      >>> shrinking_windows(4, (8, 8, 1))
      [None, 7, 5, 3]
    """
    side = max(image_shape[:2])
    sides = np.linspace(side, 3, num_levels)[1:]
    return [None, *(max(1, min(int(s) // 2 * 2 + 1, 2 * side - 1)) for s in sides)]


def shrinking_features(num_levels: int, num_features: int) -> list[int]:
    """A number of features for every level, geometrically from num_features down to 8."""
    least = min(8, num_features)
    return [round(m) for m in np.geomspace(num_features, least, num_levels)]


def _fit_optimal(data: ImageData, grid: Any, seed: int, *, labels: bool = False) -> Denoiser:
    if _check.boolean("labels", labels) and data.labels is None:
        raise ValueError(f"optimal:labels=true needs labels, and {data.name} has none.")
    return OptimalDenoiser.fit(data.images, data.weights, data.labels if labels else None)


def _fit_linear(data: ImageData, grid: Any, seed: int, **options: Any) -> Denoiser:
    return LinearDenoiser.fit(data.images, weights=data.weights, **options)


def _fit_local(data: ImageData, grid: Any, seed: int, **options: Any) -> Denoiser:
    return LocalLinearDenoiser.fit(data.images, weights=data.weights, **options)


def _fit_equivariant(data: ImageData, grid: Any, seed: int, **options: Any) -> Denoiser:
    return EquivariantLinearDenoiser.fit(data.images, weights=data.weights, **options)


def _fit_bottleneck(data: ImageData, grid: Any, seed: int, **options: Any) -> Denoiser:
    return BottleneckDenoiser.fit(data.images, weights=data.weights, **options)


def _fit_polynomial(
    data: ImageData, grid: Any, seed: int, *, degree: int, sigmas: str | None = None, **options: Any
) -> Denoiser:
    return PolynomialDenoiser.fit(
        data.images, degree, _levels(grid, sigmas), weights=data.weights, **options
    )


def _fit_random(
    data: ImageData, grid: Any, seed: int, *, degree: int, sigmas: str | None = None, **options: Any
) -> Denoiser:
    return RandomPolynomialDenoiser.fit(
        data.images, degree, _levels(grid, sigmas), _key(seed), weights=data.weights, **options
    )


def _fit_patch(
    data: ImageData,
    grid: Any,
    seed: int,
    *,
    degree: int,
    num_features: int = 64,
    sigmas: str | None = None,
    **options: Any,
) -> Denoiser:
    levels = _levels(grid, sigmas)
    num_levels = len(_check.levels("sigmas", levels))
    return PatchPolynomialDenoiser.fit(
        data.images,
        degree,
        levels,
        shrinking_windows(num_levels, data.image_shape),
        _key(seed),
        num_features=shrinking_features(num_levels, num_features),
        weights=data.weights,
        **options,
    )


def _levels(grid: Any, sigmas: str | None) -> np.ndarray:
    return np.asarray(grid if sigmas is None else noise.parse_grid(sigmas))


def _key(seed: int) -> jax.Array:
    return jax.random.key(seed, impl="threefry2x32")


def _check_axes(name: str) -> Callable[..., None]:
    """Checks a number of axes: at most min(N - 1, D)."""

    def check(data: ImageData, **options: Any) -> None:
        if options.get(name) is not None:
            most = axes.num_axes(data.num_train, math.prod(data.image_shape))
            _check.integer(name, options[name], maximum=most)

    return check


def _check_labels(data: ImageData, *, labels: bool = False) -> None:
    if labels:
        _fit_optimal(data, None, 0, labels=labels)


def _check_degree(data: ImageData, *, degree: int, **options: Any) -> None:
    _check.integer("degree", degree)


CLOSED_FORMS: dict[str, ClosedForm] = {
    "optimal": ClosedForm(_fit_optimal, ("labels",), check=_check_labels),
    "linear": ClosedForm(_fit_linear, ("rank",), check=_check_axes("rank")),
    "local_linear": ClosedForm(_fit_local, ("patch_size",), ("patch_size",)),
    "equivariant_linear": ClosedForm(_fit_equivariant, ("patch_size",)),
    "polynomial": ClosedForm(
        _fit_polynomial, ("degree", "ridge", "sigmas"), ("degree",), _check_degree
    ),
    "random_polynomial": ClosedForm(
        _fit_random,
        ("degree", "num_features", "num_draws", "ridge", "sigmas"),
        ("degree",),
        _check_degree,
    ),
    "patch_polynomial": ClosedForm(
        _fit_patch,
        ("degree", "num_features", "num_draws", "ridge", "sigmas"),
        ("degree",),
        _check_degree,
    ),
    "bottleneck": ClosedForm(
        _fit_bottleneck,
        ("code_dim", "decoder", "code"),
        ("code_dim",),
        _check_axes("code_dim"),
    ),
}
