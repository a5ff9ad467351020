"""How alike two sets of images are, image by image, in five numbers that are often confused.

    pearson_r      sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)
    r_squared      the square of pearson_r
    determination  1 - |a - b|^2 / |a - mean a|^2   (R2: what b explains of a)
    cosine         sum a b / (|a| |b|)
    mse            |a - b|^2 / d

Each is a mean over images. `agreements` gives all five for samples of two denoisers from the same
noise, `explained_by` for the answers of a denoiser and of closed forms to the same noisy images.
pearson_r and r_squared see neither level nor contrast; cosine depends on where 0 is (black, for
images, which are taken on [0, 1]); determination is 1 for equal images alone and has no lower end.
Sources: Kadkhodaie et al. 2024, "Generalization in diffusion models arises from geometry-adaptive
harmonic representations" (agreement of networks trained on disjoint halves); Kamb & Ganguli 2025
report pearson_r under the name r2; Lukoianov et al. 2025 report determination.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jdiff.metrics import inputs
from jdiff.metrics.denoising import (
    Noisy,
    answers,
    arguments,
    fitted_levels,
    mean_by_level,
    placed,
)
from jdiff.metrics.intervals import bootstrap_mean
from jdiff.metrics.measure import Measure


def pearson_r(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean over images of the Pearson correlation of their values, each image's mean removed.

    r = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds r in [-1, 1].

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values, or constant
        images, whose correlation is not defined (with their count).
    """
    return _measure("pearson_r", a, b, seed)


def r_squared(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean over images of the squared Pearson correlation; -1 counts like 1.

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds r^2 in [0, 1].

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values or constant
        images.
    """
    return _measure("r_squared", a, b, seed)


def determination(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean over images of the coefficient of determination R2: what b explains of a.

    1 - |a - b|^2 / |a - mean a|^2

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features: what is explained.
      b: as many of the same shape, the explanation. The two may not be exchanged.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds R2: 1 for equal images, 0 for what is
      as far from a as a's mean level is, negative for what is farther.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values or constant
        images in a.

    Example:
      >>> a = np.array([[0.0, 1.0], [0.0, 1.0]])
      >>> determination(a, 1 - a).value, round(r_squared(a, 1 - a).value, 6)
      (-3.0, 1.0)
    """
    return _measure("determination", a, b, seed)


def cosine(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean over images of the cosine of the angle between them, sum a b / (|a| |b|).

    Images are taken on [0, 1], where 0 is black: two bright images have a cosine near 1 whatever
    they show.

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds the cosines in [-1, 1].

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values, or images that
        are black (features that are zero), whose direction is not defined.
    """
    return _measure("cosine", a, b, seed)


def mse(a: Any, b: Any, *, seed: int = 0) -> Measure:
    """Mean squared difference of the values of two sets, images on [0, 1].

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features.
      b: as many of the same shape; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measure with a bootstrap interval; `per_sample` holds each image's.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images or non-finite values.

    Example:
      >>> mse(np.full((2, 8, 8, 1), -1.0), np.full((2, 8, 8, 1), 1.0)).value
      1.0
    """
    return _measure("mse", a, b, seed)


def agreements(a: Any, b: Any, *, seed: int = 0) -> dict[str, Measure]:
    """All five numbers of two sets, for samples of two denoisers from the same noise.

    Args:
      a: n >= 2 images (uint8 or unclipped model units) or features: what is explained.
      b: as many of the same shape, the explanation; image i is compared with a's image i.
      seed: of the bootstrap.

    Returns:
      Measures by name: pearson_r, r_squared, determination, cosine, mse.

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on shapes that differ, fewer than two images, non-finite values, constant images
        or black ones.
    """
    return {name: _measure(name, a, b, seed) for name in PER_IMAGE}


def varies(images: Any) -> np.ndarray:
    """Whether each image has two values that differ, and so a correlation with others.

    Args:
      images: n >= 1 images (uint8 or unclipped model units) or features.

    Returns:
      bool [n].
    """
    return ~_constant(_float64(inputs.samples("images", images)))


def explained_by(
    denoiser: Callable,
    references: Mapping[str, Callable],
    train: Any,
    held_out: Any,
    sigmas: Any,
    *,
    key: jax.Array,
    num_images: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Measure]]:
    """How well closed forms foretell a denoiser's answers to the same noisy images.

    Args:
      denoiser: (y, sigma) -> x_hat, what is explained.
      references: the explanations by name, of the same kind, for example the optimal denoiser.
      train: the images it was trained on, [N, H, W, C] uint8 or model units in [-1, 1].
      held_out: images that it was not trained on, for the control.
      sigmas: levels in model units, decreasing (a closing 0 is left off), or None for the
        denoiser's own.
      key: of the noise and of the choice of images.
      num_images: how many of each set, at least 2; None takes 64, or the smaller set.
      seed: of the bootstrap.

    Returns:
      For each reference the five Measures of `agreements`, with values [T]: at noisy training
      images, and as control at noisy held-out ones. `per_sample` is [n, T].

    Raises:
      TypeError: on a denoiser that is not callable, a wrong dtype or a key of another kind.
      ValueError: on no references, shapes that differ, levels that one of them was not fitted at,
        more images than there are, or answers that are not finite, constant or all black.

    References:
      Kamb & Ganguli 2025; Lukoianov et al. 2025.
    """
    given = arguments(denoiser, train, held_out, sigmas, key, num_images, default=64)
    if not references:
        raise ValueError("references must hold at least one denoiser by name; got none.")
    for name, reference in references.items():
        if not callable(reference):
            got = type(reference).__name__
            raise TypeError(f"references[{name!r}] must be a callable; got {got}.")
        try:
            fitted_levels(reference, given.sigmas)
        except ValueError as error:
            raise ValueError(f"references[{name!r}]: {error}") from error

    explained = placed(denoiser)
    explanations = {name: placed(reference) for name, reference in references.items()}

    def numbers(noisy: Noisy) -> dict[tuple[str, str], np.ndarray]:
        """Each number of each reference, [n, T]; x_hats are held for one level at a time."""
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        for level in given.sigmas:
            a = answers(explained, noisy, level)
            for reference, function in explanations.items():
                b = answers(function, noisy, level)
                labels = "denoiser's answers", f"{reference}'s answers"
                for name, per_image in PER_IMAGE.items():
                    found.setdefault((reference, name), []).append(per_image(a, b, labels))
        return {which: np.stack(levels, axis=1) for which, levels in found.items()}

    values, control = numbers(given.train), numbers(given.held_out)

    def measured(reference: str, name: str) -> Measure:
        constants = {"reference": reference, "sigmas": given.sigmas.tolist()}
        which = (reference, name)
        return mean_by_level(name, values[which], control[which], constants, seed)

    return {
        reference: {name: measured(reference, name) for name in PER_IMAGE}
        for reference in references
    }


# Each takes two sets and what to call them in an error, and returns float64 [n].


def _pearson_r(a: np.ndarray, b: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    x, y = _centred(names[0], a), _centred(names[1], b)
    return np.einsum("nd,nd->n", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))


def _r_squared(a: np.ndarray, b: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    return _pearson_r(a, b, names) ** 2


def _determination(a: np.ndarray, b: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    spread = np.square(_centred(names[0], a)).sum(axis=1)
    return 1 - np.square(_float64(a) - _float64(b)).sum(axis=1) / spread


def _cosine(a: np.ndarray, b: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    x, y = _direction(names[0], a), _direction(names[1], b)
    return np.einsum("nd,nd->n", x, y) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))


def _mse(a: np.ndarray, b: np.ndarray, names: tuple[str, str]) -> np.ndarray:
    return np.square(_float64(a) - _float64(b)).mean(axis=1)


PER_IMAGE: dict[str, Callable[[np.ndarray, np.ndarray, tuple[str, str]], np.ndarray]] = {
    "pearson_r": _pearson_r,
    "r_squared": _r_squared,
    "determination": _determination,
    "cosine": _cosine,
    "mse": _mse,
}


def _measure(name: str, a: Any, b: Any, seed: int) -> Measure:
    a, b = inputs.samples("a", a), inputs.samples("b", b)
    if a.shape != b.shape:
        raise ValueError(f"b must have the shape of a, {a.shape}; got {b.shape}.")
    inputs.at_least(2, a=a)
    values = PER_IMAGE[name](a, b, ("a", "b"))
    return Measure(
        name,
        float(values.mean()),
        bootstrap_mean(values, seed),
        None,
        None,
        len(values),
        inputs.space(a),
        {"seed": seed},
        values,
    )


def _float64(array: np.ndarray) -> np.ndarray:
    return inputs.flat(array).astype(np.float64)


def _centred(name: str, array: np.ndarray) -> np.ndarray:
    x = _float64(array)
    _refuse(_constant(x), f"{name} must not hold constant images, whose correlation is not defined")
    return x - x.mean(axis=1, keepdims=True)


def _constant(x: np.ndarray) -> np.ndarray:
    # A spread of a few float32 roundings is that of a constant image, and its direction is noise.
    spread, size = np.ptp(x, axis=1), np.abs(x).max(axis=1)
    return spread <= 4 * np.finfo(np.float32).eps * size


def _direction(name: str, array: np.ndarray) -> np.ndarray:
    x = _float64(array)
    # Black is -1 in model units: what is left of it on [0, 1] is rounding. Features have no scale.
    least = 4 * np.finfo(np.float32).eps if array.ndim == 4 else 0.0
    _refuse(
        np.abs(x).max(axis=1) <= least,
        f"{name} must not hold images that are black (features that are zero), which have no "
        "direction",
    )
    return x


def _refuse(bad: np.ndarray, words: str) -> None:
    if np.any(bad):
        raise ValueError(
            f"{words}; got {int(bad.sum())} of {len(bad)}, the first at {int(np.argmax(bad))}."
        )
