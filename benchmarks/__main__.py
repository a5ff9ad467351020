"""`python -m benchmarks`: runs suites, prints their rows, keeps them as JSON."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks import (
    architectures,
    linear_denoiser,
    metrics,
    optimal_denoiser,
    record,
    training_step,
)

SUITES: dict[str, Callable[[str, Any], list[dict[str, Any]]]] = {
    "architectures": architectures.run,
    "linear_denoiser": linear_denoiser.run,
    "metrics": metrics.run,
    "optimal_denoiser": optimal_denoiser.run,
    "training_step": training_step.run,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure jdiff on this machine.

    Attributes:
      suites: What to measure; default architectures, one row for each of four.
      size: smoke takes seconds to minutes on two cores and only shows that all works.
      data: For the denoisers: real images, for example tfds:mnist; default random ones.
      data_dir: Where TFDS data sets lie.
      out: The JSON file, for one suite; default benchmarks/results/DEVICE-SUITE-SIZE.json.
      progress: Progress bars.
    """

    suites: Annotated[tuple[str, ...], tyro.conf.Positional] = ("architectures",)
    size: Literal["smoke", "cpu", "accelerator"] = "smoke"
    data: str | None = None
    data_dir: Path | None = None
    out: Path | None = None
    progress: bool = False


def main() -> None:
    """Runs the suites asked for."""
    options = tyro.cli(Options, prog="python -m benchmarks")
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        sys.exit(f"unknown suite {unknown[0]!r}; accepted: {', '.join(SUITES)}.")
    if options.out is not None and len(options.suites) > 1:
        sys.exit("--out names one file, so it goes with one suite.")
    for suite in options.suites:
        started = time.perf_counter()
        rows = SUITES[suite](options.size, options)
        path = record.write(suite, options.size, rows, options.out)
        print(
            f"{suite} ({options.size}) on {record.device()}, {time.perf_counter() - started:.0f} s"
        )
        for row in rows:
            print("  " + "  ".join(f"{name} {_spell(value)}" for name, value in row.items()))
        print(f"  -> {path}")


def _spell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {_spell(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spell, value)) + "]"
    return str(value)


if __name__ == "__main__":
    main()
