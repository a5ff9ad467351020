"""How fast does a denoiser sample: images/s by solver and by the number of its evaluations (NFE)?

Untrained networks: speed does not depend on the weights. Compared with: the loop over the levels on
the host, one jitted ddim step a call, as most code has it; jdiff compiles the whole way.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import hardware, timing
from benchmarks.suite import Case
from jdiff import networks, noise, parallel
from jdiff.denoisers import NetworkDenoiser
from jdiff.sampling.solvers import SOLVERS  # the names, and what a step of each costs
from jdiff.study import Architecture

FORMS = ("optimal", "linear")
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"shape": (8, 8, 1), "num": 16, "batch": 16, "train": 100, "steps": (3, 6), "rounds": 2},
        "architectures": (*FORMS, "unet:width=8,levels=1", "mlp:width=32,depth=2"),
    },
    "cpu": {
        **{"shape": (28, 28, 1), "num": 64, "batch": 64, "train": 10_000, "rounds": 5},
        "steps": (9, 18, 36),
        "architectures": (*FORMS, "unet:width=16,levels=3", "mlp:width=1024,depth=4"),
    },
    "accelerator": {
        **{"shape": (32, 32, 3), "num": 4096, "batch": 1024, "train": 50_000, "rounds": 5},
        # UNets take a GPU long to compile: the sweeps are made with the last one.
        **{"steps": (9, 18, 36), "swept": -1},
        "architectures": (*FORMS, "unet:width=32,levels=3", "mlp:width=1024,depth=4"),
    },
}
SIZES["pod"] = SIZES["accelerator"] | {"num": 8 * 4096, "batch": 8 * 1024}


def cases(size: str, options: Any) -> list[Case]:
    """Architectures by the middle number of steps; solvers; numbers of steps; the host's loop."""
    at = SIZES[size]
    chosen = options.architectures or at["architectures"]
    for spec in chosen:
        architecture = Architecture.parse(spec)
        if architecture.per_level:
            raise ValueError(f"architectures of sampling must be one denoiser each; got {spec}.")
        if not architecture.closed_form:
            architecture.network(at["shape"])  # whose options are checked when it is made
    steps = at["steps"][len(at["steps"]) // 2]
    peak = functools.cache(lambda: hardware.matmul_peak(size))
    row = functools.cache(  # one program is compiled once, and its row is one
        lambda spec, solver, steps: _sample(spec, solver, steps, at, peak())
    )
    trained = [s for s in chosen if not Architecture.parse(s).closed_form] or chosen
    network, swept = trained[0], trained[at.get("swept", 0)]
    made = [Case("matmul peak", lambda: {"flops_per_s": peak()})]
    made += [Case(f"sample {s}", functools.partial(row, s, "heun", steps)) for s in chosen]
    made += [
        Case(f"solver {solver}, {swept}", functools.partial(row, swept, solver, steps))
        for solver in SOLVERS
    ]
    made.append(Case(f"sweep of steps, {swept}", lambda: _steps(swept, at["steps"], row)))
    made.append(Case(f"loop on the host, {network}", lambda: _host_loop(network, steps, at)))
    return made


@functools.lru_cache(maxsize=2)
def _denoiser(spec: str, shape: tuple, train: int) -> Any:
    architecture = Architecture.parse(spec)
    rng = np.random.default_rng(0)
    if architecture.closed_form:
        images = rng.integers(0, 256, (train, *shape), dtype=np.uint8)
        return architecture.fit(jdiff.data.from_arrays(images, held_out=images[:64]))
    network = architecture.network(shape)
    variables = networks.init(network, jax.random.key(0), shape)
    return NetworkDenoiser.create(
        network, variables, shape, data_std=0.5, preconditioning=architecture.preconditioning
    )


def _sample(spec: str, solver: str, steps: int, at: Any, peak: dict[str, float]) -> dict[str, Any]:
    shape, num, batch = at["shape"], at["num"], at["batch"]
    denoiser, nfe = _denoiser(spec, shape, at["train"]), SOLVERS[solver].nfe(steps)
    draw = lambda: jdiff.sample(
        denoiser, jax.random.key(0), num, sigmas=noise.karras(steps), solver=solver,
        batch_size=batch,
    )  # fmt: skip
    with hardware.peak_memory() as memory:
        first = timing.seconds(draw)
    seconds = [timing.seconds(draw) for _ in range(at["rounds"])]
    times = timing.spread(seconds)
    row: dict[str, Any] = {
        **{"architecture": spec, "image_shape": list(shape), "solver": solver, "steps": steps},
        **{"nfe": nfe, "num_samples": num, "batch": batch, "seconds": {"jdiff": times}},
        "images_per_s": timing.spread([num / t for t in seconds]),
        "evaluations_per_s": num * nfe / times["p50"],
        # Of all that a first call does beyond a later one.
        **{"compile_seconds": max(0.0, first - times["p50"]), "compiled": "all", **memory},
    }
    if not Architecture.parse(spec).closed_form:
        network = denoiser.module
        flops = networks.flops_per_image(network, shape)
        dtype = getattr(network, "dtype", "float32")
        row |= hardware.share_of_peak(flops * row["evaluations_per_s"], dtype, peak)
    return row


def _steps(spec: str, steps: tuple, row: Any) -> list[dict[str, Any]]:
    rows = [{"part": f"{t} steps", **row(spec, "ddim", t)} for t in steps]
    seconds = [found["seconds"]["jdiff"]["p50"] for found in rows]
    return [*rows, {"part": "seconds against steps", **timing.exponent(steps, seconds)}]


def _host_loop(spec: str, steps: int, at: Any) -> dict[str, Any]:
    shape, batch = at["shape"], at["batch"]
    denoiser, grid = _denoiser(spec, shape, at["train"]), noise.karras(steps)
    options = parallel.compiler_options(convolutions=True) or None

    def step(denoiser: Any, y: jax.Array, sigma: jax.Array, after: jax.Array) -> jax.Array:
        x_hat = denoiser(y, sigma)
        return x_hat + after / sigma * (y - x_hat)

    compiled = jax.jit(step, compiler_options=options)

    def on_host() -> jax.Array:
        y = jax.random.normal(jax.random.key(0), (batch, *shape), jnp.float32) * grid[0]
        for sigma, after in zip(grid[:-1], grid[1:], strict=True):
            y = compiled(denoiser, y, np.float32(sigma), np.float32(after))
        return y

    whole = lambda: jdiff.sample(denoiser, jax.random.key(0), batch, sigmas=grid, batch_size=batch)
    ways = {"loop on the host, one device": on_host, "jdiff": whole}
    return {
        **{"architecture": spec, "image_shape": list(shape), "steps": steps, "batch": batch},
        **timing.compare(ways, at["rounds"]),
    }
