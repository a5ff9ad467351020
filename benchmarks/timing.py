"""Wall time: what is timed is warm, waited for, repeated, and told as p10, p50, p90.

Machines drift, so of two ways of doing one thing what is quoted is the ratio of the same round:
they are run in turns, A B B A ..., in one process or by two processes of which one waits.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdiff import parallel

LEAST_ROUNDS = 3
LEAST_SECONDS = 0.05  # of a measurement: shorter work is done several times in a row
NOISY = 1.5  # p90 / p10 beyond which a row says that it is noise as much as result


def seconds(work: Callable[[], Any], calls: int = 1) -> float:
    """Wall seconds a call, of `calls` in a row, until the arrays that they return are there.

    An accelerator is given them all and waited for once, as programs do that keep it busy. A CPU is
    waited for after each: it may run calls that do not need each other side by side.
    """
    each = jax.default_backend() == "cpu"
    found = None
    started = time.perf_counter()
    for _ in range(calls):
        found = work()
        if each:
            jax.block_until_ready(found)
    jax.block_until_ready(found)
    return (time.perf_counter() - started) / calls


def steady(work: Callable[[], Any]) -> Callable[[], float]:
    """A measurement of warm `work`: seconds a call, of as many as fill `LEAST_SECONDS`.

    As many on every host, whose work may wait for the others'.
    """
    jax.block_until_ready(work())
    calls = max(1, math.ceil(LEAST_SECONDS / seconds(work)))
    calls = parallel.same_everywhere(calls)
    return lambda: seconds(work, calls)


def spread(values: Any) -> dict[str, Any]:
    """{"p10", "p50", "p90", "rounds", "noisy"} of positive numbers; too few cannot tell noise."""
    p10, p50, p90 = np.percentile(np.asarray(values, np.float64), (10, 50, 90))
    return {
        "p10": float(p10),
        "p50": float(p50),
        "p90": float(p90),
        "rounds": len(values),
        "noisy": bool(p90 > NOISY * p10) if len(values) >= LEAST_ROUNDS else None,
    }


def measure(work: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """The spread of the seconds of `work`, after calls that are not counted."""
    once = steady(work)
    return spread([once() for _ in range(rounds)])


def in_turns(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of several measurements finds in each round; every second goes backwards."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in works if number % 2 == 0 else reversed(works):
            found[name].append(works[name]())
    return found


def turns(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Several ways in turns, each timing itself.

    Args:
      works: name -> a function that does the work and returns its seconds; warm already.
      rounds: how often each, as `in_turns` has them.

    Returns:
      {"seconds": {name: spread}, "ratio": spread with "of": "first / second"} and, of more than
      two, "ratio" a list of the first over each other.
    """
    found = in_turns(works, rounds)
    first, *others = works
    ratios = [
        {"of": f"{first} / {other}", **spread(np.divide(found[first], found[other]))}
        for other in others
    ]
    return {
        "seconds": {name: spread(values) for name, values in found.items()},
        "ratio": ratios[0] if len(ratios) == 1 else ratios,
    }


def compare(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """`turns` of functions whose wall time counts, after calls of each that do not."""
    return turns({name: steady(work) for name, work in works.items()}, rounds)


def exponent(sizes: Any, values: Any) -> dict[str, Any]:
    """The slope b of value = a size^b, least squares in logarithms, with its standard error.

    Two points have no error that could be told: None.

    Raises:
      ValueError: of fewer than two sizes, or of what is not positive: neither has a slope.
    """
    if len(set(sizes)) < 2 or not all(v > 0 for v in (*sizes, *values)):
        raise ValueError(
            f"an exponent needs two sizes or more, all positive; got {list(values)} at "
            f"{list(sizes)}."
        )
    x, y = (np.log(np.asarray(v, np.float64)) for v in (sizes, values))
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    error = np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)) if len(x) > 2 else None
    return {"exponent": slope, "standard_error": None if error is None else float(error)}


def exponents(over: str, sizes: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """A row an exponent, "WORD against OVER", of values that were told at every size.

    Memory is not told everywhere (None), nor are kilobytes beyond what a process had (0). Of one
    size, or none, there is no exponent.
    """
    if len(set(sizes)) < 2:
        return []
    told = {word: v for word, v in values.items() if all(one is not None and one > 0 for one in v)}
    return [{"part": f"{word} against {over}", **exponent(sizes, v)} for word, v in told.items()]
