"""What measures accept: images (rank 4) or features (rank 2), checked once, here.

Images are uint8 or float model units, and become [0, 1] only where distances are taken. Generated
images are unclipped: they may leave [-1, 1], but must be finite. Features are used as they are, as
float32.
"""

from typing import Any, NamedTuple

import numpy as np

from jdiff import _check, _pixels

# No set of generated images has every pixel at least mid-grey and some as far out as this.
NOT_MODEL_UNITS = 16.0


class Inputs(NamedTuple):
    """The three arrays of a measure, checked, of equal trailing shape and rank."""

    generated: np.ndarray
    train: np.ndarray
    held_out: np.ndarray
    features: str  # "pixels" or "features"


def check(generated: Any, train: Any, held_out: Any) -> Inputs:
    """Returns the arguments of a measure, checked.

    Args:
      generated: [n, H, W, C] uint8 or unclipped model units, or [n, d] features.
      train: [N, H, W, C] uint8 or model units in [-1, 1], or [N, d] features.
      held_out: real images or features that were not trained on, like `train`.

    Raises:
      TypeError: on a dtype that is neither uint8 (images) nor floating.
      ValueError: on ranks or trailing shapes that differ, NaN, infinity or a wrong range.
    """
    train = real("train", train)
    held_out = real("held_out", held_out)
    generated = samples("generated", generated)
    same_shape("train", train, generated=generated, held_out=held_out)
    return Inputs(generated, train, held_out, space(train))


def space(array: np.ndarray) -> str:
    """The name of the feature space: "pixels" for images, "features" for rank 2."""
    return "pixels" if array.ndim == 4 else "features"


def real(name: str, array: Any) -> np.ndarray:
    """Returns real images (uint8, or float32 in [-1, 1]) or features (float32)."""
    array = np.asarray(array)
    return samples(name, array) if array.ndim == 2 else _check.images(name, array)


def samples(name: str, array: Any) -> np.ndarray:
    """Returns images (uint8, or float32 in unclipped model units) or features (float32).

    Raises:
      TypeError: on another dtype, among them uint8 features.
      ValueError: on another rank, no samples, samples that are not finite (with their count), or
        float images that are plainly on another scale than model units.
    """
    array = np.asarray(array)
    if array.ndim not in (2, 4):
        raise ValueError(
            f"{name} must be images [n, height, width, channels] or features [n, d]; "
            f"got shape {array.shape}."
        )
    if 0 in array.shape:
        raise ValueError(f"{name} must hold at least one sample; got shape {array.shape}.")
    if array.dtype == np.uint8 and array.ndim == 4:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        wanted = "uint8, or float in model units" if array.ndim == 4 else "float features"
        raise TypeError(f"{name} must be {wanted}; got dtype {array.dtype}, rank {array.ndim}.")
    with np.errstate(over="ignore"):  # what overflows float32 is counted below
        array = array.astype(np.float32, copy=False)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        raise ValueError(
            f"{name} must be finite in float32; {int(np.sum(~finite))} of {len(array)} samples "
            "hold NaN or infinite values."
        )
    pictures = array.ndim == 4 and array.shape[1] * array.shape[2] > 1
    if pictures and low >= 0 and high > NOT_MODEL_UNITS:
        raise ValueError(
            f"{name} must be in model units (about [-1, 1]) if float; got "
            f"[{low:.4g}, {high:.4g}]. Pass 0..255 as uint8."
        )
    return array


def same_shape(name: str, array: np.ndarray, **others: np.ndarray) -> None:
    """Refuses `others` whose rank or trailing shape is not that of `array`, called `name`."""
    for other, value in others.items():
        if value.shape[1:] != array.shape[1:]:
            raise ValueError(
                f"{other} must have the trailing shape of {name}, {array.shape[1:]}; "
                f"got {value.shape[1:]}."
            )


def flat(array: np.ndarray) -> np.ndarray:
    """Images or features as the float32 [n, d] that distances are taken between."""
    rows = array.reshape(len(array), -1)
    return _pixels.to_unit(rows) if array.ndim == 4 else rows


def at_least(least: int, **arrays: np.ndarray) -> None:
    """Refuses arrays, given by name, of fewer than `least` samples."""
    for name, array in arrays.items():
        if len(array) < least:
            raise ValueError(f"{name} must hold at least {least} samples; got {len(array)}.")
