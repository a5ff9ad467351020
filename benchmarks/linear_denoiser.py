"""The affine denoiser: sampling against the formula as it is written, and fits that stream.

Compared with: D(y) = mu + S (S + sigma^2 I)^-1 (y - mu), solving the D x D system at every step
(`jnp.linalg.solve`, whole batch at once), through the same sampler. The random-feature fit is timed
at several sizes of the training set: its memory must not grow with it.
"""

import functools
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import child, hardware, suite, timing
from benchmarks.images import load
from benchmarks.suite import Case
from jdiff import noise
from jdiff.denoisers import RandomPolynomialDenoiser

# Image side, samples, sampler steps, rounds; then features, levels and the sizes of the fits.
SIZES: dict[str, Any] = {
    "smoke": (8, 100, 6, 2, 64, 3, (200, 400)),
    "cpu": (28, 1000, 18, 9, 1024, 18, (2_500, 5_000, 10_000)),
    "accelerator": (28, 1000, 18, 5, 1024, 18, ()),
}
SIZES["pod"] = SIZES["cpu"]


class Direct(flax.struct.PyTreeNode):
    """The formula, transcribed: a D x D system a step."""

    mean: jax.Array
    covariance: jax.Array
    image_shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)
    sigmas: Any = None

    def __call__(self, y: jax.Array, sigma: jax.Array, labels: Any = None) -> jax.Array:
        """mu + S (S + sigma^2 I)^-1 (y - mu)."""
        centered = (y.reshape(len(y), -1) - self.mean[None]).T
        noisy = self.covariance + sigma**2 * jnp.eye(len(self.mean))
        x = jnp.matmul(self.covariance, jnp.linalg.solve(noisy, centered), precision="highest")
        return (self.mean[None] + x.T).reshape(y.shape)


def cases(size: str, options: Any) -> list[Case]:
    """Sampling speed at two batches, and time and memory of the random-feature fits."""
    side, samples, steps, rounds, features, levels, sizes = SIZES[size]
    sampled = lambda batch: _sampling(_images(3_000, side, options), samples, steps, rounds, batch)
    made = [Case("linear, sampling", lambda: sampled(None))]  # at the sampler's own batch
    if size == "accelerator":  # which has eight minutes for all suites
        return made
    return [
        *made,
        # All samples in one batch favour the direct formula most.
        Case("linear, sampling in one batch", lambda: sampled(samples)),
        Case("random features, fits", lambda: _fits(sizes, side, features, levels)),
    ]


def _images(n: int, side: int, options: Any) -> np.ndarray:
    if options.data is not None:
        return load(options.data, options.data_dir).images[:n]
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 1), dtype=np.uint8)


def _sampling(
    images: np.ndarray, samples: int, steps: int, rounds: int, batch_size: int | None
) -> dict[str, Any]:
    ours = jdiff.LinearDenoiser.fit(images)
    covariance = (ours.basis * ours.eigenvalues[None]) @ ours.basis.T
    direct = Direct(ours.mean, covariance, ours.image_shape)
    key, grid = jax.random.key(0), noise.karras(steps)
    draw = lambda denoiser: jdiff.sample(denoiser, key, samples, sigmas=grid, batch_size=batch_size)
    return {
        **{"image_shape": list(ours.image_shape), "num_samples": samples, "steps": steps},
        **{"solver": "ddim", "batch": batch_size},
        "largest_difference": float(jnp.abs(draw(ours) - draw(direct)).max()),
        **timing.compare({"D x D solve a step": lambda: draw(direct), "jdiff": lambda: draw(ours)},
                         rounds),
    }  # fmt: skip


def _fits(sizes: tuple, side: int, features: int, levels: int) -> list[dict[str, Any]]:
    """Fits of several sizes. Their solves, a host's work, are the same at each."""
    make = functools.partial(_fit, side=side, features=features, levels=levels)
    works = {f"{n} images": (n, functools.partial(make, n)) for n in sizes}
    numbers = {
        "seconds": lambda row: row["fit_seconds"],
        "peak MB": lambda row: row.get("peak_mb_beyond_data"),
    }
    return suite.sweep("images", works, numbers)


def _fit(n: int, side: int, features: int, levels: int) -> dict[str, Any]:
    """A fit; on the CPU in a process of its own, whose peak memory is its own."""
    row: dict[str, Any] = {
        **{"num_train": n, "image_shape": [side, side, 1]},
        **{"num_features": features, "levels": levels},
    }
    if jax.default_backend() != "cpu":  # another process may not have the device too
        with hardware.program_memory() as memory:
            seconds, _ = fit_once(n, side, features, levels)
        return {**row, "fit_seconds": seconds, **memory}
    arguments = f"{n}, {side}, {features}, {levels}"
    code = f"from benchmarks.linear_denoiser import fit_once; print(*fit_once({arguments}))"
    seconds, memory = child.numbers(code, 2)
    memory = None if math.isnan(memory) else memory
    return {**row, "fit_seconds": seconds, "peak_mb_beyond_data": memory}


def fit_once(n: int, side: int, features: int, levels: int) -> tuple[float, float]:
    """Seconds of a second fit, and MB of the first beyond what was there; NaN if not told."""
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, 1), dtype=np.uint8)
    jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
    fit = lambda: RandomPolynomialDenoiser.fit(
        images, 3, noise.karras(levels), jax.random.key(0), features, num_draws=4
    )
    with hardware.process_memory() as memory:
        jax.block_until_ready(fit())
    peak = memory["peak_mb"]
    return timing.seconds(fit), math.nan if peak is None else peak
