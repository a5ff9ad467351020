"""How fast does a denoiser sample: images/s by solver and by the number of its evaluations (NFE)?

Untrained networks: speed does not depend on the weights. Solvers are set side by side at (nearly)
equal NFE, not at equal steps, of which one of heun costs two. Compared with: the loop over the
levels on the host, one jitted ddim step a call, as most code has it; jdiff compiles the whole way.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import hardware, timing
from benchmarks.suite import Case, Skip
from jdiff import networks, noise, parallel
from jdiff.denoisers import NetworkDenoiser
from jdiff.sampling.solvers import SOLVERS  # the names, and what a step of each costs
from jdiff.study import Architecture

FORMS = ("optimal", "linear")
# nfe: evaluations a sample, of the sweep; the middle one is that of all other rows.
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"shape": (8, 8, 1), "num": 16, "batch": 16, "train": 100, "nfe": (3, 6), "rounds": 2},
        "architectures": (*FORMS, "unet:width=8,levels=1", "mlp:width=32,depth=2"),
    },
    "cpu": {
        **{"shape": (28, 28, 1), "num": 64, "batch": 64, "train": 10_000, "rounds": 5},
        "nfe": (9, 18, 36),
        "architectures": (*FORMS, "unet:width=16,levels=3", "mlp:width=1024,depth=4"),
    },
    "accelerator": {
        **{"shape": (32, 32, 3), "num": 2048, "batch": 1024, "train": 10_000, "rounds": 5},
        # UNets take a GPU long to compile: the sweeps are made with the last one.
        **{"nfe": (9, 18, 36), "swept": -1},
        "architectures": (*FORMS, "unet:width=32,levels=3", "mlp:width=1024,depth=4"),
    },
}
SIZES["pod"] = SIZES["accelerator"] | {"num": 8 * 4096, "batch": 8 * 1024, "train": 50_000}


def cases(size: str, options: Any) -> list[Case]:
    """Architectures at the middle NFE; solvers at it; the sweep of NFE; the host's loop."""
    at = SIZES[size]
    chosen = options.architectures or at["architectures"]
    parsed = {spec: Architecture.parse(spec) for spec in chosen}
    for architecture in parsed.values():
        if not architecture.closed_form:
            architecture.network(at["shape"])  # whose options are checked when it is made
    nfe = at["nfe"][len(at["nfe"]) // 2]
    peak = lambda: hardware.matmul_peak(size)
    row = functools.cache(  # one program is compiled once, and its row is one
        lambda spec, solver, nfe: _sample(spec, solver, nfe, at, peak())
    )
    made = [Case("matmul peak", lambda: {"flops_per_s": peak()})]
    made += [Case(f"sample {spec}", functools.partial(row, spec, "ddim", nfe)) for spec in chosen]
    whole = [spec for spec, architecture in parsed.items() if not architecture.per_level]
    if not whole:
        return made
    trained = [spec for spec in whole if not parsed[spec].closed_form] or whole
    network, swept = trained[0], trained[at.get("swept", 0)]
    made += [
        Case(f"solver {solver}, {swept}", functools.partial(row, swept, solver, nfe))
        for solver in SOLVERS
    ]
    made.append(Case(f"sweep of NFE, {swept}", lambda: _sweep(swept, at["nfe"], row)))
    made.append(Case(f"loop on the host, {network}", lambda: _host_loop(network, nfe, at)))
    return made


def steps_for(solver: str, nfe: int) -> int:
    """The most steps of a solver that cost at most `nfe` evaluations."""
    return max(steps for steps in range(1, nfe + 1) if SOLVERS[solver].nfe(steps) <= nfe)


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


def _sample(spec: str, solver: str, most: int, at: Any, peak: dict[str, float]) -> dict[str, Any]:
    """A row of the most steps that `most` evaluations allow."""
    if Architecture.parse(spec).per_level:
        raise Skip("one network a level: each evaluation is one of the network without per_level")
    shape, num, batch = at["shape"], at["num"], at["batch"]
    steps = steps_for(solver, most)
    denoiser, nfe = _denoiser(spec, shape, at["train"]), SOLVERS[solver].nfe(steps)
    draw = lambda: jdiff.sample(
        denoiser, jax.random.key(0), num, sigmas=noise.karras(steps), solver=solver,
        batch_size=batch,
    )  # fmt: skip
    with hardware.program_memory() as memory:
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


def _sweep(spec: str, nfes: tuple, row: Any) -> list[dict[str, Any]]:
    rows = [{"part": f"{nfe} NFE", **row(spec, "ddim", nfe)} for nfe in nfes]
    seconds = [found["seconds"]["jdiff"]["p50"] for found in rows]
    return [*rows, {"part": "seconds against NFE", **timing.exponent(nfes, seconds)}]


def _host_loop(spec: str, steps: int, at: Any) -> dict[str, Any]:
    if parallel.num_devices() > 1:
        raise Skip("jdiff.sample uses all devices and the loop one: compare on one device")
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
