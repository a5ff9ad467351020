"""OptimalDenoiser on many images: peak memory, accuracy against float64, speed against a matmul.

Compared with: a float64 NumPy brute force (posterior weights from the differences themselves, for
the images that count) for accuracy; one plain `jnp` matmul pair of the same shapes and precision,
[B, D] x [D, N] and [B, N] x [N, D], for speed.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import timing

SIZES = {"smoke": 2_000, "cpu": 60_000, "accelerator": 60_000}
QUERIES = 64
# Beside the 18 levels of the sampling grid, those at which near twins are told apart.
TWIN_LEVELS = (0.05, 0.02, 0.01, 0.005)


def run(size: str, options: Any) -> list[dict[str, Any]]:
    """Memory, accuracy and speed on 28 x 28 images, 40 of which have a near twin."""
    images = _images(SIZES[size], options)
    return [_memory(images), *_accuracy(images), _speed(images, 3 if size == "smoke" else 7)]


def _images(n: int, options: Any) -> np.ndarray:
    """Real images if a data set is named, else smooth random ones; the last 40 are near twins."""
    if options.data is not None:
        images = jdiff.data.load(options.data, data_dir=options.data_dir).images[:n].copy()
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
    """Peak resident memory during the first calls, compilation included, beyond that before."""
    denoiser = jdiff.OptimalDenoiser.fit(images)
    jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
    call, before = _call(), _status("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark counts from here
    except OSError as error:
        return {"row": "peak memory", "status": f"skipped: {error}"}
    for sigma in (50.0, 1.0, 0.1, 0.01):
        call(denoiser, _noisy(images, sigma), jnp.float32(sigma)).block_until_ready()
    return {
        "row": "peak memory",
        "images": list(images.shape),
        "queries": QUERIES,
        "data_mb": images.nbytes / 2**20,
        "growth_mb": (_status("VmHWM") - before) / 2**10,
    }


def _status(name: str) -> int:
    """One entry of /proc/self/status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise KeyError(name)


def _accuracy(images: np.ndarray) -> list[dict[str, Any]]:
    x = (images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5)) - np.float32(1)
    x = x.astype(np.float64)
    half_norms = np.square(x).sum(1) / 2
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    name_leaders = jax.jit(lambda denoiser, y, sigma: denoiser.posterior(y, sigma))
    rows = []
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
        rows.append(
            {
                "row": f"error at sigma {sigma:.4g}",
                # The image range is 2 in model units.
                "image_error_of_range": float(np.abs(x_hat - p @ x).max() / 2),
                "weight_error": float(np.abs(expected - np.asarray(named.weights)).max()),
            }
        )
    return rows


def _speed(images: np.ndarray, rounds: int) -> dict[str, Any]:
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    n, d = len(images), int(np.prod(images.shape[1:]))
    y = jnp.asarray(_noisy(images, 20.0))
    a, x = y.reshape(QUERIES, d), jnp.asarray(images.reshape(n, d), jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    product = jax.jit(
        lambda a, x: jnp.matmul(jnp.matmul(a, x.T, precision=highest), x, precision=highest)
    )
    found = timing.compare(
        lambda: product(a, x).block_until_ready(),
        lambda: call(denoiser, y, jnp.float32(20.0)).block_until_ready(),
        rounds,
    )
    flops = 4 * QUERIES * n * d
    return {
        "row": "speed at sigma 20, share of a plain matmul's FLOP/s",
        **found,
        "matmul_gflops": flops / found["a_seconds"] / 1e9,
        "denoiser_gflops": flops / found["b_seconds"] / 1e9,
    }
