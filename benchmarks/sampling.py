"""How fast does a denoiser sample: images/s by solver and by the number of its evaluations (NFE)?

Untrained networks: speed does not depend on the weights. Solvers are set side by side at (nearly)
equal NFE, not at equal steps, of which one of heun costs two. Compared with: the loop over the
levels on the host, one jitted ddim step a call, as most code has it; jdiff compiles the whole way.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jdiff
from benchmarks import hardware, suite, timing
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
    """Architectures at the middle NFE; solvers at it; the sweep of NFE; the host's loop.

    Solvers take turns, and so do the sizes of the sweep.
    """
    at = SIZES[size]
    chosen = options.architectures or at["architectures"]
    parsed = {spec: Architecture.parse(spec) for spec in chosen}
    for architecture in parsed.values():
        if not architecture.closed_form:
            architecture.network(at["shape"])  # whose options are checked when it is made
    nfe = at["nfe"][len(at["nfe"]) // 2]
    ready = functools.cache(  # a program is compiled once
        lambda spec, solver, nfe: _ready(spec, solver, nfe, at)
    )
    peak = functools.partial(hardware.matmul_peak, size)
    run = lambda ways: _in_turns(ways, at["rounds"], peak())
    alone = lambda spec: _alone(ready(spec, "ddim", nfe), at["rounds"], peak())
    made = [suite.peak(size)]
    made += [Case(f"sample {spec}", functools.partial(alone, spec)) for spec in chosen]
    whole = [spec for spec, architecture in parsed.items() if not architecture.per_level]
    if not whole:
        return made
    trained = [spec for spec in whole if not parsed[spec].closed_form] or whole
    network, swept = trained[0], trained[at.get("swept", 0)]
    solvers = {solver: functools.partial(ready, swept, solver, nfe) for solver in SOLVERS}
    sizes = {f"{n} NFE": functools.partial(ready, swept, "ddim", n) for n in at["nfe"]}
    made.append(Case(f"solvers, {swept}", lambda: run(solvers)))
    made.append(Case(f"sweep of NFE, {swept}", lambda: _with_exponent(run(sizes))))
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


class _Ready(NamedTuple):
    """A warm way to sample: the start of its row, seconds of its first call, its measurement."""

    row: dict[str, Any]
    first: float
    once: Callable[[], float]


def _ready(spec: str, solver: str, most: int, at: Any) -> _Ready:
    """Compiled, of the most steps that `most` evaluations allow."""
    if Architecture.parse(spec).per_level:
        raise Skip("one network a level: each evaluation is one of the network without per_level")
    shape, num, batch = at["shape"], at["num"], at["batch"]
    steps = steps_for(solver, most)
    denoiser = _denoiser(spec, shape, at["train"])
    draw = lambda: jdiff.sample(
        denoiser, jax.random.key(0), num, sigmas=noise.karras(steps), solver=solver,
        batch_size=batch,
    )  # fmt: skip
    with hardware.program_memory() as memory:
        first = timing.seconds(draw)
    row: dict[str, Any] = {
        **{"architecture": spec, "image_shape": list(shape), "solver": solver, "steps": steps},
        **{"nfe": SOLVERS[solver].nfe(steps), "num_samples": num, "batch": batch, **memory},
    }
    if not Architecture.parse(spec).closed_form:
        network = denoiser.module
        row |= {
            "dtype": getattr(network, "dtype", "float32"),
            "num_params": networks.num_params(network, shape),
            "flops_per_image": networks.flops_per_image(network, shape),
        }
    return _Ready(row, first, timing.steady(draw))


def _alone(way: _Ready, rounds: int, peak: dict[str, float]) -> dict[str, Any]:
    return _row(way, [way.once() for _ in range(rounds)], peak)


def _in_turns(
    ways: dict[str, Callable[[], _Ready]], rounds: int, peak: dict[str, float]
) -> list[dict[str, Any]]:
    """A row a way, measured in turns; and one of each that fails, which stops no other."""
    ready, lost = suite.each(ways)
    found = timing.in_turns({part: way.once for part, way in ready.items()}, rounds)
    return [{"part": part, **_row(ready[part], found[part], peak)} for part in ready] + lost


def _row(way: _Ready, seconds: list[float], peak: dict[str, float]) -> dict[str, Any]:
    times, num = timing.spread(seconds), way.row["num_samples"]
    row: dict[str, Any] = {
        **way.row,
        **{"seconds": {"jdiff": times}, "images_per_s": timing.spread([num / t for t in seconds])},
        "evaluations_per_s": num * way.row["nfe"] / times["p50"],
        # Of all that a first call does beyond a later one.
        **{"compile_seconds": max(0.0, way.first - times["p50"]), "compiled": "all"},
    }
    if "flops_per_image" in row:
        done = row["flops_per_image"] * row["evaluations_per_s"]
        row |= hardware.share_of_peak(done, row["dtype"], peak)
    return row


def _with_exponent(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    told = [row for row in rows if "nfe" in row]
    seconds = [row["seconds"]["jdiff"]["p50"] for row in told]
    return [*rows, *timing.exponents("NFE", [row["nfe"] for row in told], {"seconds": seconds})]


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
