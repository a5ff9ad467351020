"""Wall time: what is timed is warm, waited for, repeated, and told as p10, p50, p90.

Machines drift, so of two ways of doing one thing what is quoted is the ratio of neighbours in time:
they are run in turns, A B B A ..., in one process or by two processes of which one waits.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

LEAST_ROUNDS = 3
NOISY = 1.5  # p90 / p10 beyond which a row says that it is noise as much as result


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call, until the arrays that it returns are there."""
    started = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - started


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
    """The spread of the seconds of `work`, after one call that is not counted."""
    jax.block_until_ready(work())
    return spread([seconds(work) for _ in range(rounds)])


def turns(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Several ways in turns, each timing itself.

    Args:
      works: name -> a function that does the work and returns its seconds; warm already.
      rounds: how often each; every second round goes backwards.

    Returns:
      {"seconds": {name: spread}, "ratio": spread with "of": "first / second"} and, of more than
      two, "ratio" a list of the first over each other.
    """
    names = list(works)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(works[name]())
    ratios = [
        {"of": f"{names[0]} / {other}", **spread(np.divide(found[names[0]], found[other]))}
        for other in names[1:]
    ]
    return {
        "seconds": {name: spread(values) for name, values in found.items()},
        "ratio": ratios[0] if len(ratios) == 1 else ratios,
    }


def compare(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """`turns` of functions whose wall time counts, after one call each that does not."""
    for work in works.values():
        jax.block_until_ready(work())
    return turns({n: lambda work=work: seconds(work) for n, work in works.items()}, rounds)


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

    Memory is not told everywhere (None), nor are kilobytes beyond what a process had (0).
    """
    told = {word: v for word, v in values.items() if all(one is not None and one > 0 for one in v)}
    return [{"part": f"{word} against {over}", **exponent(sizes, v)} for word, v in told.items()]
