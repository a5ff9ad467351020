"""Two ways of doing one thing, timed in turns in one process: A B A B ...

Machines drift, so what is quoted is the ratio of neighbours: its median and its spread.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def seconds(work: Callable[[], Any]) -> float:
    """Wall seconds of one call; `work` itself waits until its results are there."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(a: Callable[[], Any], b: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Times both `rounds` times in turns, after one warm-up each.

    Returns:
      {"a_seconds", "b_seconds": medians, "ratio": median of a/b, "ratio_spread": [min, max],
      "rounds"}.
    """
    a(), b()
    pairs = np.array([(seconds(a), seconds(b)) for _ in range(rounds)])
    ratios = pairs[:, 0] / pairs[:, 1]
    return {
        "a_seconds": float(np.median(pairs[:, 0])),
        "b_seconds": float(np.median(pairs[:, 1])),
        "ratio": float(np.median(ratios)),
        "ratio_spread": [float(ratios.min()), float(ratios.max())],
        "rounds": rounds,
    }
