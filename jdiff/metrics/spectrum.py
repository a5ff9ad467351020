"""Do the samples have the right amount of detail at every scale? Radial power spectra.

    P(u, v) = |FFT(x)|^2 / (H W),    P(r) = mean of P over images, channels and round(|f| L) = r,

f in cycles per pixel, L the longer side; white noise of variance s^2 has P = s^2 at every r. All
frequencies count, the corners (checkerboards of transposed convolutions) included. The distance is
|log P_g - log P_t| over r, natural logarithm, both floored at 1e-6 of the training images' mean
square (the rounding to 256 grey levels is 1.3e-6 of white). It sees no phases: images of noise with
the right spectrum score best.
Source: Durall et al. 2020, "Watch your up-convolution: CNN based generative deep neural networks
are failing to reproduce spectral distributions".
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from jdiff import _exact, _pixels, parallel
from jdiff.metrics import inputs
from jdiff.metrics.draws import drawn
from jdiff.metrics.intervals import NUM_PARTS, Interval, left_out_interval, part_of
from jdiff.metrics.measure import Measure

FLOOR = 1e-6  # of the training images' mean square pixel
VALUES = 2**22  # pixels transformed at a time, on each device


class RadialSpectrum(NamedTuple):
    """The mean power of a set of images ([0, 1]) at each radius.

    Attributes:
      frequency: float64 [R], cycles per pixel: 0, 1/L, 2/L, ...
      power: float64 [R].
      total: the mean square pixel, which is the mean of the power over all frequencies.
      n: the number of images.
    """

    frequency: np.ndarray
    power: np.ndarray
    total: float
    n: int


def radial_spectrum(images: Any) -> RadialSpectrum:
    """The radial power spectrum of a set of images, on [0, 1].

    Args:
      images: [n, H, W, C], H W > 1, uint8 or unclipped model units.

    Raises:
      TypeError: on a dtype that is neither uint8 nor floating.
      ValueError: on features, one-pixel images or non-finite values.

    Example:
      >>> checkerboard = np.indices((4, 4)).sum(axis=0)[None, :, :, None] % 2 * 2.0 - 1
      >>> radial_spectrum(checkerboard).power.round(3)
      array([4., 0., 0., 4.])
    """
    images = inputs.samples("images", images)
    _pictures("images", images)
    return _mean(_spectra(images), images.shape[1:3])


def spectrum_distance(
    generated: Any, train: Any, held_out: Any, *, train_spectrum: RadialSpectrum | None = None
) -> Measure:
    """L2 norm over radii of the difference of log radial power spectra.

    Args:
      generated: at least 10 images, uint8 or unclipped model units.
      train: training images, not all black.
      held_out: real images that were not trained on, at least 10, for the control.
      train_spectrum: `radial_spectrum(train)`, if it is known.

    Returns:
      Measure on n = min(generated, held out) of each (draws.py); intervals from leaving out tenths
      of them (`left_out_interval`).

    Raises:
      TypeError: on a wrong dtype.
      ValueError: on features, one-pixel images, shapes that differ, non-finite values, too few
        images or another spectrum.
    """
    given = inputs.check(generated, train, held_out)
    _pictures("train", given.train)
    inputs.at_least(NUM_PARTS, generated=given.generated, held_out=given.held_out)
    side = given.train.shape[1:3]
    real = radial_spectrum(given.train) if train_spectrum is None else train_spectrum
    radii = _radii(*side)
    if real.power.shape != (radii.max() + 1,) or real.n != len(given.train):
        raise ValueError(
            f"train_spectrum must be radial_spectrum(train), of {len(given.train)} images at "
            f"{radii.max() + 1} radii; got that of {real.n} at {len(real.power)}."
        )
    floor = FLOOR * real.total
    if floor == 0:
        raise ValueError("train must not be black everywhere: its spectrum has no logarithm.")
    n = min(len(given.generated), len(given.held_out))
    log = lambda power: np.log(np.maximum(power, floor))
    distance = lambda power: float(np.linalg.norm(log(power) - log(real.power)))

    def measured(images: np.ndarray) -> tuple[float, Interval]:
        spectra, part = _spectra(images[drawn(images, n)]), part_of(n)
        value = distance(spectra.mean(axis=0))
        left_out = [distance(spectra[part != p].mean(axis=0)) for p in range(NUM_PARTS)]
        return value, left_out_interval(value, left_out)

    value, interval = measured(given.generated)
    control, control_interval = measured(given.held_out)
    return Measure(
        "spectrum_distance",
        value,
        interval,
        control,
        control_interval,
        n,
        given.features,
        {
            "part_size": n // NUM_PARTS,
            "num_radii": len(real.power),
            "floor": FLOOR,
            "num_train": len(given.train),
        },
    )


def _mean(spectra: np.ndarray, side: tuple[int, int]) -> RadialSpectrum:
    radii, power = _radii(*side), spectra.mean(axis=0)
    counts = np.bincount(radii.ravel())
    frequency = np.arange(len(power)) / max(side)
    return RadialSpectrum(frequency, power, float(counts @ power / radii.size), len(spectra))


def _spectra(images: np.ndarray) -> np.ndarray:
    """P(r) of each image, float64 [n, R]."""
    radii = _radii(*images.shape[1:3]).ravel()
    averages = jnp.asarray(
        (radii[:, None] == np.arange(radii.max() + 1)) / np.bincount(radii), jnp.float32
    )
    mesh = parallel.row_devices()
    most = max(1, VALUES // math.prod(images.shape[1:]))
    block = parallel.rows_a_call(len(images), most, mesh)
    spectra = []
    for start in range(0, len(images), block):
        rows = images[start : start + block]
        placed = parallel.split_rows(rows, block, 0, mesh)  # one shape, one compilation
        found = _image_spectra(placed, averages, mesh=mesh)
        spectra.append(np.asarray(found, np.float64)[: len(rows)])
    return np.concatenate(spectra)


@functools.partial(jax.jit, static_argnames="mesh")
def _image_spectra(
    images: jax.Array, averages: jax.Array, *, mesh: Mesh | AbstractMesh | None = None
) -> jax.Array:
    """P(r) of B images [B, H, W, C] -> [B, R]; averages [H W, R] over each radius.

    The images are divided over the devices of `mesh`, if it is given.
    """
    in_specs = (parallel.SPLIT, parallel.WHOLE)
    return parallel.map_shards(_radial, mesh, in_specs, parallel.SPLIT)(images, averages)


def _radial(images: jax.Array, averages: jax.Array) -> jax.Array:
    x = _pixels.to_unit(images)
    pixels = x.shape[1] * x.shape[2]
    # Without its mean: a float32 transform leaks 1e-7 of the largest amplitude into all others.
    mean = jnp.mean(x, axis=(1, 2), keepdims=True)
    f = jnp.fft.fft2(x - mean, axes=(1, 2))
    power = jnp.mean(jnp.square(f.real) + jnp.square(f.imag), axis=-1) / pixels
    spectra = _exact.dot(power.reshape(len(x), -1), averages)
    # At r = 0 there is the mean alone.
    return spectra.at[:, 0].set(pixels * jnp.mean(jnp.square(mean), axis=(1, 2, 3)))


def _radii(height: int, width: int) -> np.ndarray:
    """round(|f| L) at each place of an FFT, int [H, W]; no radius between is left out."""
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return np.rint(f * max(height, width)).astype(int)


def _pictures(name: str, images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[1] * images.shape[2] == 1:
        raise ValueError(
            f"{name} must be images [n, height, width, channels] of more than one pixel, or there "
            f"is no spectrum; got shape {images.shape}."
        )
