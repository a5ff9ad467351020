"""How far a denoiser looks: the window that holds most of what moves one pixel of its answer.

    g_p(q) = mean over images and channels c of sum over channels of |dD(y)_(p, c) / dy_q|,
    y = x + sigma z,
    side(share) = the smallest odd k with  sum_p sum_(q: |q - p| <= k // 2) g_p(q)
                                           >= share sum_p sum_q g_p(q)

with |q - p| the larger of the row's and the column's difference: a k x k square around p, cut off
where the image ends. Pixels p come from the middle half of the rows and columns, so that squares of
up to half the image are whole. Gradients are vector-Jacobian products, one backward pass a pixel
and channel; no Jacobian is held.
Source: Niedoba et al. 2024, "Towards a mechanistic explanation of diffusion model generalization",
who choose patch sizes by such shares; the choice of pixels and of the edge is ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check
from jdiff.metrics.denoising import Noisy, arguments, in_batches
from jdiff.metrics.intervals import RESAMPLES
from jdiff.metrics.measure import Measure

PIXELS = 2  # folded into the measure's key; 0 and 1 are the two sets of images


def locality_profile(
    denoiser: Callable,
    train: Any,
    held_out: Any,
    sigmas: Any,
    *,
    key: jax.Array,
    q: Sequence[float] = (0.5, 0.75, 0.95),
    num_images: int | None = None,
    num_pixels: int | None = None,
    seed: int = 0,
) -> tuple[Measure, ...]:
    """Side, in pixels, of the square around p that holds a share q of mean |dD(y)_p / dy|.

    A k x k filter has a side of at most k; the whole image is a side of up to 2 max(H, W) - 1, by
    how far p is from the edge. A denoiser that does not depend on y at all (an optimal one between
    well separated images, in float32) has side 0.

    Args:
      denoiser: (y, sigma) -> x_hat, differentiable by jax.vjp.
      train: the images it was trained on, [N, H, W, C] uint8 or model units in [-1, 1].
      held_out: images that it was not trained on, for the control.
      sigmas: levels in model units, decreasing (a closing 0 is left off), or None for the
        denoiser's own.
      key: of the noise and of the choice of images and pixels.
      q: the shares, each in (0, 1).
      num_images: how many of each set, at least 2; None takes 16, or the smaller set.
      num_pixels: how many pixels, the same in every image; None takes 16, or the middle half.
      seed: of the bootstrap.

    Returns:
      One Measure a share, in the order of `q` (constants["q"]), with values [T]: at noisy training
      images, and as control at noisy held-out ones; bootstrap intervals over images. `per_sample`
      is [n, T], each image's own side.

    Raises:
      TypeError: on a denoiser that is not callable, a wrong dtype or a key of another kind.
      ValueError: on shapes that differ, a share out of range, levels that the denoiser was not
        fitted at, more images or pixels than there are, or gradients that are not finite.

    References:
      Niedoba et al. 2024, section 4.
    """
    shares = [_check.number(f"q[{i}]", share, above=0, below=1) for i, share in enumerate(q)]
    if not shares:
        raise ValueError("q must hold at least one share in (0, 1); got none.")
    seed = _check.integer("seed", seed, minimum=0)
    given = arguments(denoiser, train, held_out, sigmas, key, num_images, default=16)
    height, width = given.train.images.shape[1:3]
    middle = np.stack(
        [
            a.ravel()
            for a in np.mgrid[height // 4 : height - height // 4, width // 4 : width - width // 4]
        ],
        axis=1,
    )
    if num_pixels is None:
        num_pixels = min(16, len(middle))
    num_pixels = _check.integer("num_pixels", num_pixels, maximum=len(middle))
    pick = jax.random.permutation(jax.random.fold_in(given.key, PIXELS), len(middle))
    pixels = middle[np.sort(np.asarray(pick)[:num_pixels])].astype(np.int32)

    inside = [_inside(denoiser, noisy, given.sigmas, pixels) for noisy in given[:2]]
    n = len(inside[0])
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)

    def measured(share: float) -> Measure:
        (value, interval, own), (control, control_interval, _) = (
            (_side(x.sum(axis=0), share), _ends(x, drawn, share), _side(x, share)) for x in inside
        )
        constants = {
            "q": share,
            "sigmas": given.sigmas.tolist(),
            "num_pixels": num_pixels,
            "seed": seed,
        }
        return Measure(
            "locality_profile",
            value,
            interval,
            control,
            control_interval,
            n,
            "pixels",
            constants,
            own,
        )

    return tuple(measured(share) for share in shares)


def _inside(denoiser: Callable, noisy: Noisy, sigmas: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """sum over p of the gradient within distance r of p, float64 [n, T, R], R = max(H, W)."""
    height, width = noisy.images.shape[1:3]
    rows, columns = np.indices((height, width))
    away = [np.maximum(abs(rows - i), abs(columns - j)).ravel() for i, j in pixels]
    distance = np.concatenate(away)
    size = max(height, width)
    rings = []
    # One image a call and device: what comes back of each is P H W a level.
    for batch in in_batches(_gradients, denoiser, noisy, sigmas, pixels, batch_size=1):
        for found in batch:
            flat = found.reshape(len(sigmas), -1).astype(np.float64)
            rings.append([np.bincount(distance, level, minlength=size) for level in flat])
    return np.cumsum(rings, axis=-1)


def _gradients(denoise: Callable, x: jax.Array, y: jax.Array, pixels: jax.Array) -> jax.Array:
    """The mean over c of sum over channels of |dD(y)_(p, c) / dy|, [B, P, H, W]."""
    channels = x.shape[-1]

    def of_image(y: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda one: denoise(one[None])[0], y)

        def gradient(pixel: jax.Array, channel: jax.Array) -> jax.Array:
            one_hot = jnp.zeros_like(y).at[pixel[0], pixel[1], channel].set(1)
            return jnp.abs(pull(one_hot)[0]).sum(axis=-1)

        of_pixel = jax.vmap(gradient, (None, 0))
        return jax.vmap(of_pixel, (0, None))(pixels, jnp.arange(channels)).mean(axis=1)

    return jax.lax.map(of_image, y)


def _side(inside: np.ndarray, share: float) -> np.ndarray:
    """The side 2 r + 1 that holds the share, of gradients within r = 0, 1, .. [..., R].

    It is 0 where there is no gradient at all.
    """
    total = inside[..., -1]
    radius = np.argmax(inside >= share * total[..., None], axis=-1)
    return np.where(total > 0, 2 * radius + 1, 0).astype(np.float64)


def _ends(inside: np.ndarray, drawn: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % bootstrap interval over images, [T] each; drawn [resamples, n] counts images."""
    n, levels, size = inside.shape
    resampled = (drawn @ inside.reshape(n, -1)).reshape(-1, levels, size)
    # A quantile between two odd numbers would be no side.
    low, high = np.quantile(
        _side(resampled, share), [0.025, 0.975], axis=0, method="closest_observation"
    )
    return low, high
