"""What a study costs, said before it starts; and budgets as numbers of steps."""

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdiff import networks, noise, parallel, training
from jdiff.data import ImageData
from jdiff.sampling.solvers import SOLVERS
from jdiff.study.config import Architecture, Budget, Study
from jdiff.training import TrainConfig

# A gradient step costs about three forward passes.
FORWARDS_A_STEP = 3
# For the estimate alone: what a network reaches of a matmul's FLOP/s, seconds to compile a row's
# programs, and the least time of a step or an evaluation. Rough on purpose, and said to be.
_SHARE, _COMPILE_SECONDS, _LEAST_STEP, _LEAST_EVALUATION = 0.2, 12.0, 2e-3, 1e-3


def steps(
    budget: Budget, architecture: Architecture, data: ImageData, batch_size: int, **config: Any
) -> int:
    """The training steps that a budget buys an architecture on a data set.

    Args:
      budget: steps, seconds or FLOPs.
      architecture: a network.
      data: the training set; only its shape matters, except for a budget in seconds, for which
        some steps are timed.
      batch_size: images a step.
      **config: what else `TrainConfig` is given.

    Raises:
      ValueError: if the budget does not buy one step.
    """
    if budget.unit == "steps":
        ratio = 1.0
        if budget.image_shape is not None:
            ratio = max(1.0, _ratio(architecture, data.image_shape, budget.image_shape))
        if budget.amount < ratio:
            raise ValueError(
                f"budget must buy at least one step of {architecture.label}: on images as large as "
                f"these one step counts as {ratio:.3g}; got {budget.amount:g}."
            )
        return round(budget.amount / ratio)
    network = architecture.network(data.image_shape)
    if budget.unit == "flops":
        flops = networks.flops_per_image(network, data.image_shape)
        a_step = FORWARDS_A_STEP * flops * batch_size
        return _at_least_one(budget, architecture, int(budget.amount / a_step), a_step)
    # On accelerators many steps are one call: as many as training itself would make.
    number = 12 if jax.default_backend() == "cpu" else 121
    trial = TrainConfig(steps=number, batch_size=batch_size, eval_every=number, **config)
    result = training.train(network, data, trial, key=jax.random.key(0), progress=False)
    assert result.images_per_s is not None  # more than one step was made
    a_step = batch_size / result.images_per_s
    return _at_least_one(budget, architecture, int(budget.amount / a_step), a_step)


def steps_each(
    budget: Budget, architecture: Architecture, data: ImageData, batch_size: int, **config: Any
) -> int:
    """As `steps`, of each of an architecture's networks, which share them.

    Raises:
      ValueError: if the budget does not buy each of them one step.
    """
    bought = steps(budget, architecture, data, batch_size, **config)
    number = num_networks(architecture)
    if bought < number:
        raise ValueError(
            f"budget must buy at least one step for each of the {number} networks of "
            f"{architecture.label}; got {bought}."
        )
    return bought // number


def _ratio(architecture: Architecture, here: tuple[int, ...], there: tuple[int, ...]) -> float:
    """FLOPs of a network of this name at one image shape over those at another.

    Its options are left aside, so that networks of one name train for equally many steps. Where
    that cannot be built, at shapes that it was not made for, the values of an image count.
    """
    try:
        flops = [
            networks.flops_per_image(networks.create(architecture.name, shape), shape)
            for shape in (here, there)
        ]
    except (TypeError, ValueError):
        return math.prod(here) / math.prod(there)
    return flops[0] / flops[1]


def _at_least_one(budget: Budget, architecture: Architecture, steps: int, a_step: float) -> int:
    if steps >= 1:
        return steps
    raise ValueError(
        f"budget must buy at least one step of {architecture.label}, which takes {a_step:.3g} "
        f"{budget.unit}; got {budget.amount:g}."
    )


def describe(study: Study, plan: Sequence[Any], configs: dict, flops: dict) -> str:
    """One paragraph: rows, steps, samples, NFE and a rough time.

    Args:
      study: what will run.
      plan: its rows.
      configs: the TrainConfig of each row that trains.
      flops: forward FLOPs an image of each row that trains.
    """
    grid = noise.parse_grid(study.sigmas)
    nfe = SOLVERS[study.solver].nfe(len(grid) - 1)
    rate = _matmul_rate() * parallel.num_devices()
    seconds = 0.0
    for entry in plan:
        seconds += _COMPILE_SECONDS
        if entry in configs:  # closed forms take little beside their compilation
            config = configs[entry]
            evaluations = study.num_samples * nfe
            seconds += max(evaluations * flops[entry] / rate, nfe * _LEAST_EVALUATION)
            step = FORWARDS_A_STEP * flops[entry] * config.batch_size / (_SHARE * rate)
            steps_of_all = config.steps * num_networks(entry[0])
            seconds += steps_of_all * max(step, _LEAST_STEP)
    trained = {
        f"{entry[0].label} {_times(entry[0])}{configs[entry].steps:,} steps of "
        f"{study.batch_size} images"
        for entry in plan
        if entry in configs
    }
    training_text = f"trains {'; '.join(sorted(trained))}; " if trained else "trains nothing; "
    return (
        f"{study.name}: {len(plan)} rows on {study.data}; {training_text}draws {study.num_samples} "
        f"samples a row from one noise, {nfe} denoiser evaluations each ({study.solver}, "
        f"{study.sigmas}). Roughly {duration(seconds)} on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s), guessed from FLOPs, if nothing is done yet."
    )


def num_networks(architecture: Architecture) -> int:
    """How many networks an architecture is: one, or one for each level of its own grid."""
    own = architecture.per_level
    return 1 if own is None else len(noise.parse_grid(own)) - 1


def _times(architecture: Architecture) -> str:
    number = num_networks(architecture)
    return "" if number == 1 else f"{number} x "


def duration(seconds: float) -> str:
    """Seconds for people: '45 s', '3 min 20 s', '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _matmul_rate(n: int = 768) -> float:
    """FLOP/s of one device's matmul, best of three."""
    multiply, a = jax.jit(jnp.matmul), jnp.ones((n, n))
    multiply(a, a).block_until_ready()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        multiply(a, a).block_until_ready()
        times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times)
