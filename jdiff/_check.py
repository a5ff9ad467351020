"""Argument checks: every one raises with the argument's name, what came and what is accepted.

Bad input fails here, on the host and before anything is compiled; nothing is clipped, cast or
dropped. Facts between our own functions are chex assertions instead, where they stand.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def choice(name: str, value: Any, accepted: Iterable[str]) -> str:
    """Returns `value` if it is one of the `accepted` strings.

    Raises:
      ValueError: otherwise; close matches are listed first.
    """
    accepted = sorted(accepted)
    if isinstance(value, str) and value in accepted:
        return value
    close = difflib.get_close_matches(str(value), accepted, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    raise ValueError(f"{name} is {value!r}.{hint} Accepted: {', '.join(accepted)}.")


def options(name: str, given: Iterable[str], accepted: Iterable[str]) -> None:
    """Refuses unknown option names, listing close matches and all accepted ones."""
    accepted = list(accepted)
    for option in given:
        choice(name, option, accepted)


def integer(name: str, value: Any, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Returns `value` as an int if it is a whole number in [minimum, maximum].

    Raises:
      TypeError: if it is not a whole number (bools are not).
      ValueError: if it is out of range.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; got {value!r} ({type(value).__name__}).")
    if value < minimum or (maximum is not None and value > maximum):
        wanted = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"{name} must be {wanted}; got {value}.")
    return int(value)


def odd(name: str, value: Any, maximum: int, otherwise: str = "") -> int:
    """Returns `value` as an int if it is an odd whole number in [1, maximum].

    Args:
      name: the argument's name.
      value: what came.
      maximum: the largest accepted.
      otherwise: what else the caller accepts, to go on in the message after the range.

    Raises:
      TypeError: if it is not a whole number.
      ValueError: if it is out of range, or even.
    """
    value = integer(name, value, maximum=maximum)
    if value % 2 == 0:
        raise ValueError(f"{name} must be odd, from 1 to {maximum}{otherwise}; got {value}.")
    return value


def as_tuple(value: Any) -> Any:
    """(1, 2) of [1, 2] and of "1+2", (1,) of 1; anything else as it is, to be refused."""
    if isinstance(value, str):
        for number in (int, float):
            try:
                return tuple(number(part) for part in value.split("+"))
            except ValueError:
                pass
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, int | float | np.number) else value


def number(
    name: str, value: Any, *, above: float = -math.inf, below: float = math.inf, closed: str = ""
) -> float:
    """Returns `value` as a float if it is finite and between `above` and `below`.

    Args:
      name: the argument's name.
      value: what came.
      above: the lower end, excluded unless "[" is in `closed`.
      below: the upper end, excluded unless "]" is in `closed`.
      closed: which ends belong to the accepted range: "", "[", "]" or "[]".

    Raises:
      TypeError: if it is not a real number.
      ValueError: if it is not finite or out of range.
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real:
        raise TypeError(f"{name} must be a number; got {value!r} ({type(value).__name__}).")
    low = value >= above if "[" in closed else value > above
    high = value <= below if "]" in closed else value < below
    if not (math.isfinite(value) and low and high):
        left, right = "[" if "[" in closed else "(", "]" if "]" in closed else ")"
        raise ValueError(f"{name} must be in {left}{above}, {below}{right}; got {value}.")
    return float(value)


def image_shape(name: str, shape: Any) -> tuple[int, int, int]:
    """Returns (H, W, C) if `shape` is three positive whole numbers."""
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(f"{name} must be (height, width, channels); got {shape!r}.")
    h, w, c = (integer(f"{name}[{i}]", s) for i, s in enumerate(shape))
    return h, w, c


def images(name: str, array: Any, *, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """Returns `array` as NumPy if it is images: [N, H, W, C], uint8 or model-unit floats.

    Floats of images with more than one pixel must lie in [-1, 1]; 1x1xC arrays (toy data) are
    only checked to be finite. Floats come back as float32.

    Args:
      name: the argument's name.
      array: the images, N >= 1.
      shape: (H, W, C) that they must have, if known.

    Raises:
      TypeError: if the dtype is neither uint8 nor floating.
      ValueError: on a wrong rank, no images, another shape, non-finite or out-of-range values.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise TypeError(
            f"{name} must be uint8, or float in model units [-1, 1]; got dtype {array.dtype}."
        )
    if array.ndim != 4:
        raise ValueError(
            f"{name} must have shape [N, height, width, channels]; got rank {array.ndim}, "
            f"shape {array.shape}."
        )
    if 0 in array.shape:
        raise ValueError(f"{name} must hold at least one image; got shape {array.shape}.")
    if shape is not None and array.shape[1:] != tuple(shape):
        raise ValueError(f"{name} must be images of shape {tuple(shape)}; got {array.shape[1:]}.")
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} holds NaN or infinite values; all must be finite.")
    if array.shape[1] * array.shape[2] > 1 and (low < -1.0 or high > 1.0):
        raise ValueError(
            f"{name} must lie in [-1, 1] (float images are in model units; pass uint8 for "
            f"0..255); got [{low:.4g}, {high:.4g}]."
        )
    return array.astype(np.float32, copy=False)


def labels(name: str, array: Any, num_rows: int, num_classes: int | None = None) -> np.ndarray:
    """Returns class labels as int32 [num_rows], all in 0 .. num_classes - 1.

    Raises:
      TypeError: if the dtype is not an integer.
      ValueError: on a wrong shape, or a label out of range (an embedding would give a silent NaN).
    """
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}.")
    if array.shape != (num_rows,):
        raise ValueError(f"{name} must have shape ({num_rows},); got {array.shape}.")
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low < 0 or high >= (2**31 if num_classes is None else num_classes):
        top = "num_classes - 1" if num_classes is None else f"{num_classes - 1}"
        raise ValueError(f"{name} must lie in 0 .. {top}; got {low} .. {high}.")
    return array.astype(np.int32)


def weights(name: str, array: Any, num_rows: int) -> np.ndarray:
    """Returns weights as float64 [num_rows] that sum to 1.

    Raises:
      TypeError: if they are not real numbers.
      ValueError: on a wrong shape, a negative or non-finite weight, or all weights zero.
    """
    try:
        given = np.asarray(array)
    except ValueError:  # lists of unequal lengths
        raise ValueError(f"{name} must have shape ({num_rows},); got lists in a list.") from None
    real = jnp.issubdtype(given.dtype, np.floating) or given.dtype.kind in "biu"
    if not real:
        raise TypeError(f"{name} must be real numbers; got dtype {given.dtype}.")
    if given.shape != (num_rows,):
        raise ValueError(f"{name} must have shape ({num_rows},); got {given.shape}.")
    array = given.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if len(bad):
        raise ValueError(
            f"{name} must be finite and not negative; got {array[bad[0]]} at place {bad[0]}"
            + (f" and {len(bad) - 1} more." if len(bad) > 1 else ".")
        )
    with np.errstate(over="ignore"):  # told below
        total = array.sum()
    if total <= 0:
        raise ValueError(f"{name} must not all be zero.")
    if not np.isfinite(total):
        raise ValueError(f"{name} must have a finite sum; got up to {array.max()}.")
    return array / total


def sigmas(name: str, array: Any) -> np.ndarray:
    """Returns a grid of noise levels, float32 [T + 1], strictly decreasing and ending in 0.

    Raises:
      ValueError: if it is anything else.
    """
    array = np.asarray(array)
    if array.ndim != 1 or len(array) < 2 or not np.issubdtype(array.dtype, np.number):
        raise ValueError(
            f"{name} must be a one-dimensional grid of at least two noise levels, the last 0; "
            f"got shape {array.shape}, dtype {array.dtype}."
        )
    grid = array.astype(np.float32)
    if not np.all(np.isfinite(grid)) or grid[-1] != 0 or np.any(np.diff(grid) >= 0):
        raise ValueError(
            f"{name} must decrease strictly to 0, for example noise.karras(18); got {array}."
        )
    return grid


def levels(name: str, array: Any) -> np.ndarray:
    """Returns noise levels a denoiser is defined at, float32 [T]: positive, decreasing, no 0.

    The closing 0 of a sampling grid may be there and is left off.
    """
    array = np.atleast_1d(np.asarray(array, np.float32))
    grid = array[:-1] if array.ndim == 1 and len(array) > 1 and array[-1] == 0 else array
    if grid.size == 0:
        raise ValueError(f"{name} must hold at least one positive noise level; got {array}.")
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or np.any(grid <= 0):
        raise ValueError(
            f"{name} must be positive noise levels (a final 0 may follow); got {array}."
        )
    if np.any(np.diff(grid) >= 0):
        raise ValueError(f"{name} must decrease strictly; got {array}.")
    return grid


def fitted(name: str, sigmas: Any, own: Any, whose: str) -> None:
    """Refuses levels that something which differs from level to level was not fitted at.

    Raises:
      ValueError: naming the first level that is missing (relative tolerance 1e-5).
    """
    own = np.asarray(own)
    for sigma in np.asarray(sigmas):
        if not np.any(np.isclose(sigma, own, rtol=1e-5, atol=0)):
            levels = ", ".join(f"{level:.4g}" for level in own)
            raise ValueError(
                f"{name} asks for level {sigma:.6g}, but this {whose} is defined only at {levels}."
            )


def key(name: str, value: Any) -> jax.Array:
    """Returns `value` if it is one typed threefry key, as jax.random.key(seed) makes it.

    Raises:
      TypeError: otherwise. Raw uint32 keys and other generators are refused: the draws of a
        vmapped rbg key depend on the batch, so that sample i would not be sample i.
    """
    typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not typed or value.shape != ():
        raise TypeError(
            f"{name} must be one typed key, as jax.random.key(0) makes it; got {value!r}."
        )
    kind = str(jax.random.key_impl(value))
    if "threefry2x32" not in kind:
        raise TypeError(
            f"{name} must be a threefry2x32 key (jax.random.key(seed, impl='threefry2x32')), whose "
            f"draws do not depend on the batch; got {kind}."
        )
    return value


def boolean(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False; raises TypeError otherwise (1 and "true" too)."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r} ({type(value).__name__}).")
    return bool(value)
