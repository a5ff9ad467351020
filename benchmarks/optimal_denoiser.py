"""OptimalDenoiser: peak memory, accuracy against float64, speed against a matmul, growth with N.

Compared with: a float64 NumPy brute force (posterior weights from the differences themselves, for
the images that count) for accuracy; one plain `jnp` matmul pair of the same shapes and precision,
[B, D] x [D, N] and [B, N] x [N, D], for speed; and the formula transcribed: a softmax over all
distances at once, which holds the data as float32 and a weight for every pair.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import hardware, timing
from benchmarks.images import load
from benchmarks.suite import Case

# Training images, then those of the sweep; queries of the sweep; rounds.
SIZES: dict[str, Any] = {
    "smoke": (2_000, (500, 1_000, 2_000), (16, 64), 3),
    "cpu": (60_000, (7_500, 15_000, 30_000, 60_000), (16, 64, 256), 7),
    "accelerator": (60_000, (7_500, 15_000, 30_000, 60_000), (64, 256, 1024), 7),
}
SIZES["pod"] = SIZES["accelerator"]
QUERIES = 64
# Beside the 18 levels of the sampling grid, those at which near twins are told apart.
TWIN_LEVELS = (0.05, 0.02, 0.01, 0.005)


def cases(size: str, options: Any) -> list[Case]:
    """Memory, accuracy, speed and sweeps on 28 x 28 images, 40 of which have a near twin."""
    num, sizes, queries, rounds = SIZES[size]
    images = lambda n=num: _images(n, options)
    if options.data is not None:  # of which there may be fewer
        have = load(options.data, options.data_dir)
        if have.images.dtype != np.uint8:
            raise ValueError(f"data must be uint8 images for closed_forms; got {options.data}.")
        num = min(num, have.num_train)
        sizes = tuple(n for n in sizes if n < num) + (num,)
    return [
        Case("optimal, peak memory", lambda: _memory(images())),
        Case("optimal, accuracy", lambda: _accuracy(images())),
        Case("optimal, against a matmul", lambda: _speed(images(), rounds)),
        Case("optimal, against the formula", lambda: _formula(images(max(num // 2, 80)), rounds)),
        Case("optimal, sweep of images", lambda: _sweep(images(), sizes, (QUERIES,), rounds)),
        Case("optimal, sweep of queries", lambda: _sweep(images(), (num,), queries, rounds)),
    ]


def _images(n: int, options: Any) -> np.ndarray:
    """Real images if a data set is named, else smooth random ones; the last 40 are near twins."""
    if options.data is not None:
        images = load(options.data, options.data_dir).images[:n].copy()
    else:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (n, 7, 7, 1), dtype=np.uint8)
        images = coarse.repeat(4, 1).repeat(4, 2)
    n, centre = len(images), images.shape[1] // 2
    images[n - 40 :] = images[:40]
    grey = images[n - 40 :, centre, centre, 0].astype(int)
    images[n - 40 :, centre, centre, 0] = np.where(grey < 250, grey + 3, grey - 3)
    return images


def _noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    half = QUERIES // 2
    clean = np.concatenate([images[:half], images[-half:]])
    z = np.random.default_rng(1).standard_normal(clean.shape)
    return (clean.astype(np.float32) / np.float32(127.5) - 1 + sigma * z).astype(np.float32)


def _call() -> Any:
    return jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))


def _memory(images: np.ndarray) -> dict[str, Any]:
    """Peak memory during the first calls, compilation included."""
    denoiser = jdiff.OptimalDenoiser.fit(images)
    jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
    call = _call()
    with hardware.peak_memory() as memory:
        for sigma in (50.0, 1.0, 0.1, 0.01):
            call(denoiser, _noisy(images, sigma), jnp.float32(sigma)).block_until_ready()
    return {
        **{"images": list(images.shape), "queries": QUERIES, "data_mb": images.nbytes / 2**20},
        **memory,
    }


def _accuracy(images: np.ndarray) -> dict[str, Any]:
    x = (images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5)) - np.float32(1)
    x = x.astype(np.float64)
    half_norms = np.square(x).sum(1) / 2
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    name_leaders = jax.jit(lambda denoiser, y, sigma: denoiser.posterior(y, sigma))
    errors = []
    for sigma in (*jdiff.noise.karras(18)[:-1].tolist(), *TWIN_LEVELS):
        y = _noisy(images, sigma)
        flat = y.reshape(len(y), -1).astype(np.float64)
        logits = (flat @ x.T - half_norms) / sigma**2
        for i, row in enumerate(flat):  # exact differences where they count
            top = np.argpartition(-logits[i], 50)[:50]
            shift = np.square(row).sum() / (2 * sigma**2)
            logits[i, top] = shift - np.square(row - x[top]).sum(1) / (2 * sigma**2)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        x_hat = np.asarray(call(denoiser, y, jnp.float32(sigma))).reshape(len(y), -1)
        named = name_leaders(denoiser, y, jnp.float32(sigma))
        expected = np.take_along_axis(p, np.asarray(named.indices), 1)
        errors.append(
            {
                "sigma": sigma,
                # The image range is 2 in model units.
                "image_error_of_range": float(np.abs(x_hat - p @ x).max() / 2),
                "weight_error": float(np.abs(expected - np.asarray(named.weights)).max()),
            }
        )
    largest = lambda name: max(error[name] for error in errors)
    return {
        **{"images": list(images.shape), "queries": QUERIES, "levels": len(errors)},
        **{name: largest(name) for name in ("image_error_of_range", "weight_error")},
        "by_level": errors,
    }


def _speed(images: np.ndarray, rounds: int) -> dict[str, Any]:
    """At a high level, where every image has its weight."""
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    n, d = len(images), int(np.prod(images.shape[1:]))
    y = jnp.asarray(_noisy(images, 20.0))
    a, x = y.reshape(QUERIES, d), jnp.asarray(images.reshape(n, d), jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    product = jax.jit(
        lambda a, x: jnp.matmul(jnp.matmul(a, x.T, precision=highest), x, precision=highest)
    )
    ways = {
        "matmul pair": lambda: product(a, x),
        "jdiff": lambda: call(denoiser, y, jnp.float32(20.0)),
    }
    found = timing.compare(ways, rounds)
    flops = 4 * QUERIES * n * d
    return {
        **{"images": n, "dim": d, "queries": QUERIES, "sigma": 20.0},
        **found,
        "flops_per_s": {name: flops / t["p50"] for name, t in found["seconds"].items()},
    }


def _formula(images: np.ndarray, rounds: int) -> dict[str, Any]:
    """Against one softmax over all distances, as the formula reads."""
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    n, d = len(images), int(np.prod(images.shape[1:]))
    y, sigma = jnp.asarray(_noisy(images, 1.0)), jnp.float32(1.0)
    x = jnp.asarray(images.reshape(n, d), jnp.float32) / 127.5 - 1

    def formula(x: jax.Array, y: jax.Array, sigma: jax.Array) -> jax.Array:
        a = y.reshape(len(y), -1)
        squares = jnp.square(a).sum(1)[:, None] + jnp.square(x).sum(1)[None] - 2 * a @ x.T
        return (jax.nn.softmax(-squares / (2 * sigma**2)) @ x).reshape(y.shape)

    direct = jax.jit(formula)
    ways = {
        "formula": lambda: direct(x, y, sigma),
        "jdiff": lambda: call(denoiser, y, sigma),
    }
    difference = float(jnp.abs(direct(x, y, sigma) - call(denoiser, y, sigma)).max())
    return {
        **{"images": n, "dim": d, "queries": QUERIES, "sigma": 1.0},
        **{"largest_difference": difference, **timing.compare(ways, rounds)},
        "about": "the formula cancels in float32 and at the device's default precision",
    }


def _sweep(images: np.ndarray, sizes: tuple, queries: tuple, rounds: int) -> list[dict[str, Any]]:
    """Seconds a call against the number of images, or of queries; their exponent."""
    rows, sigma = [], jnp.float32(1.0)
    for n in sizes:
        denoiser, call = jdiff.OptimalDenoiser.fit(images[:n]), _call()
        for count in queries:
            y = jnp.asarray(np.resize(_noisy(images, 1.0), (count, *images.shape[1:])))
            with hardware.peak_memory() as memory:
                jax.block_until_ready(call(denoiser, y, sigma))
            seconds = timing.measure(functools.partial(call, denoiser, y, sigma), rounds)
            flops = 4 * count * n * int(np.prod(images.shape[1:]))
            rows.append(
                {
                    **{"part": f"{n} images, {count} queries", "images": n, "queries": count},
                    **{"seconds": {"jdiff": seconds}, "flops_per_s": flops / seconds["p50"]},
                    **memory,
                }
            )
    times = [row["seconds"]["jdiff"]["p50"] for row in rows]
    over, swept = ("images", sizes) if len(sizes) > 1 else ("queries", queries)
    return [*rows, {"part": f"seconds against {over}", **timing.exponent(swept, times)}]
