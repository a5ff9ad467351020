"""OptimalDenoiser: peak memory, accuracy against float64, speed against a matmul, growth with N.

Compared with: a float64 NumPy brute force (posterior weights from the differences themselves, for
the images that count) for accuracy; one plain `jnp` matmul pair of the same shapes and precision,
[B, D] x [D, N] and [B, N] x [N, D], for speed; and the formula transcribed: a softmax over all
distances at once, which holds the data as float32 and a weight for every pair.
"""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import child, hardware, suite, timing
from benchmarks.images import load
from benchmarks.suite import Case, Skip

# Training images, then those of the sweep; queries of the sweep; rounds.
SIZES: dict[str, Any] = {
    "smoke": (2_000, (500, 1_000, 2_000), (16, 64), 3),
    "cpu": (60_000, (7_500, 15_000, 30_000, 60_000), (16, 64, 256), 7),
    "accelerator": (60_000, (15_000, 30_000, 60_000), (16, 64, 256), 5),
}
SIZES["pod"] = SIZES["cpu"]
QUERIES = 64
TWINS = 40
# A level at which every image has its weight, and both matmuls are done. At low ones, where the
# images that lead a query are all that weighs, jdiff does not do the second.
HIGH, LOW = 20.0, 1.0
# Beside the 18 levels of the sampling grid, those at which near twins are told apart.
TWIN_LEVELS = (0.05, 0.02, 0.01, 0.005)


def cases(size: str, options: Any) -> list[Case]:
    """Memory, accuracy, speed and sweeps on 28 x 28 images, 40 of which have a near twin.

    Raises:
      ValueError: if the data are no uint8 images, or fewer than 80: 40 and their twins.
    """
    num, sizes, queries, rounds = SIZES[size]
    images = lambda n: _images(n, options.data, options.data_dir)
    if options.data is not None:  # of which there may be fewer: all sizes in proportion
        have = load(options.data, options.data_dir)
        if have.images.dtype != np.uint8:
            raise ValueError(f"data must be uint8 images for closed_forms; got {options.data}.")
        if have.num_train < 2 * TWINS:
            raise ValueError(
                f"data must be at least {2 * TWINS} images for closed_forms; {options.data} has "
                f"{have.num_train}."
            )
        share = min(1.0, have.num_train / num)
        num, sizes = int(share * num), tuple(int(share * n) for n in sizes)
    few = max(num // 2, 2 * TWINS)
    # The two sweeps share a row.
    row = functools.cache(lambda n, count: _size(images(num), n, count, rounds))
    return [
        Case("optimal, peak memory", lambda: _memory(num, options)),
        Case("optimal, accuracy", lambda: _accuracy(images(num))),
        Case("optimal, against a matmul", lambda: _speed(images(num), rounds)),
        Case("optimal, against the formula", lambda: _formula(images(few), rounds)),
        Case(
            "optimal, sweep of images", lambda: _swept("images", sizes, lambda n: row(n, QUERIES))
        ),
        Case(
            "optimal, sweep of queries", lambda: _swept("queries", queries, lambda n: row(num, n))
        ),
    ]


def _images(n: int, data: str | None, data_dir: Path | None) -> np.ndarray:
    """Real images if a data set is named, else smooth random ones; the last 40 are near twins."""
    if data is not None:
        images = load(data, data_dir).images[:n].copy()
    else:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (n, 7, 7, 1), dtype=np.uint8)
        images = coarse.repeat(4, 1).repeat(4, 2)
    n, centre = len(images), images.shape[1] // 2
    images[n - TWINS :] = images[:TWINS]
    grey = images[n - TWINS :, centre, centre, 0].astype(int)
    images[n - TWINS :, centre, centre, 0] = np.where(grey < 250, grey + 3, grey - 3)
    return images


def _noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    half = QUERIES // 2
    clean = np.concatenate([images[:half], images[-half:]])
    z = np.random.default_rng(1).standard_normal(clean.shape)
    return (clean.astype(np.float32) / np.float32(127.5) - 1 + sigma * z).astype(np.float32)


def _call() -> Any:
    return jax.jit(lambda denoiser, y, sigma: denoiser(y, sigma))


def _memory(num: int, options: Any) -> dict[str, Any]:
    """Peak memory of the first calls beyond the data, compilation included, in its own process."""
    if jax.default_backend() != "cpu":
        raise Skip("the peak of a process is measured on CPUs; the sweeps tell that of the program")
    code = (
        "import sys; from benchmarks.optimal_denoiser import calls_once; calls_once(*sys.argv[1:])"
    )
    data = [] if options.data is None else [options.data, str(options.data_dir or "")]
    peak, *shape = map(float, child.run(code, str(num), *data).split()[-5:])
    if math.isnan(peak):
        raise Skip("only Linux tells the peak memory of a part of a run")
    return {
        **{"images": [int(side) for side in shape], "queries": QUERIES},
        **{"data_mb": math.prod(shape) / 2**20},
        **{"peak_mb": peak, "peak_of": "the process, beyond the data"},
    }


def calls_once(num: str, data: str | None = None, data_dir: str = "") -> None:
    """Prints the MB that calls take beyond what was there (NaN: not told) and the data's shape."""
    images = _images(int(num), data, Path(data_dir) if data_dir else None)
    denoiser = jdiff.OptimalDenoiser.fit(images)
    jax.jit(jnp.sin)(jnp.ones(3)).block_until_ready()
    call = _call()
    with hardware.process_memory() as memory:
        for sigma in (50.0, 1.0, 0.1, 0.01):
            call(denoiser, _noisy(images, sigma), jnp.float32(sigma)).block_until_ready()
    peak = memory["peak_mb"]
    print(math.nan if peak is None else peak, *images.shape)


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
    """At a high level: the same two products."""
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    n, d = len(images), int(np.prod(images.shape[1:]))
    y = jnp.asarray(_noisy(images, HIGH))
    a, x = y.reshape(QUERIES, d), jnp.asarray(images.reshape(n, d), jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    product = jax.jit(
        lambda a, x: jnp.matmul(jnp.matmul(a, x.T, precision=highest), x, precision=highest)
    )
    ways = {
        "matmul pair": lambda: product(a, x),
        "jdiff": lambda: call(denoiser, y, jnp.float32(HIGH)),
    }
    found = timing.compare(ways, rounds)
    flops = 4 * QUERIES * n * d
    return {
        **{"images": n, "dim": d, "queries": QUERIES, "sigma": HIGH},
        **found,
        "flops_per_s": {name: flops / t["p50"] for name, t in found["seconds"].items()},
    }


def _formula(images: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Against one softmax over all distances, as the formula reads, at a high and a low level."""
    denoiser, call = jdiff.OptimalDenoiser.fit(images), _call()
    n, d = len(images), int(np.prod(images.shape[1:]))
    x = jnp.asarray(images.reshape(n, d), jnp.float32) / 127.5 - 1

    def formula(x: jax.Array, y: jax.Array, sigma: jax.Array) -> jax.Array:
        a = y.reshape(len(y), -1)
        dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)  # as jdiff's
        squares = jnp.square(a).sum(1)[:, None] + jnp.square(x).sum(1)[None] - 2 * dot(a, x.T)
        return dot(jax.nn.softmax(-squares / (2 * sigma**2)), x).reshape(y.shape)

    direct = jax.jit(formula)
    rows = []
    for level in (HIGH, LOW):
        y, sigma = jnp.asarray(_noisy(images, level)), jnp.float32(level)
        ways = {
            "formula": functools.partial(direct, x, y, sigma),
            "jdiff": functools.partial(call, denoiser, y, sigma),
        }
        difference = float(jnp.abs(direct(x, y, sigma) - call(denoiser, y, sigma)).max())
        less = "; jdiff leaves out the second, which the leading images decide"
        rows.append(
            {
                **{"part": f"sigma {level:g}", "images": n, "dim": d, "queries": QUERIES},
                **{"sigma": level, "largest_difference": difference},
                **timing.compare(ways, rounds),
                "about": "the formula cancels in float32; products at full precision"
                + (less if level == LOW else ""),
            }
        )
    return rows


def _size(images: np.ndarray, n: int, queries: int, rounds: int) -> dict[str, Any]:
    """A row of a sweep: seconds a call on the first n images, and the memory of its program."""
    denoiser, call, sigma = jdiff.OptimalDenoiser.fit(images[:n]), _call(), jnp.float32(HIGH)
    y = jnp.asarray(np.resize(_noisy(images, HIGH), (queries, *images.shape[1:])))
    with hardware.program_memory() as memory:
        jax.block_until_ready(call(denoiser, y, sigma))
    seconds = timing.measure(lambda: call(denoiser, y, sigma), rounds)
    flops = 4 * queries * n * math.prod(images.shape[1:])
    return {
        **{"images": n, "queries": queries, "sigma": HIGH},
        **{"seconds": {"jdiff": seconds}, "flops_per_s": flops / seconds["p50"], **memory},
    }


def _swept(over: str, sizes: tuple, row: Any) -> list[dict[str, Any]]:
    """The rows of a sweep, and how seconds and memory grow with what was swept."""
    works = {f"{n} {over}": (n, functools.partial(row, n)) for n in sizes}
    numbers = {
        "seconds": lambda row: row["seconds"]["jdiff"]["p50"],
        "peak MB": lambda row: row["peak_mb"],
    }
    return suite.sweep(over, works, numbers)
