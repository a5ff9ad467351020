"""How long does a study take, from the command to its page, everything compiled anew?

Each in a process of its own, as a user starts it, into a folder of the work folder, where its page
can be looked at. One run: the seconds of minutes of work repeat to some percent, and what is asked
of them is minutes.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import child
from benchmarks.suite import Case, Skip, device_for_two

SIZES: dict[str, tuple[tuple[str, ...], ...]] = {
    "smoke": (("demo", "--architectures", "linear"),),
    "cpu": (
        ("demo",),
        ("laws",),
        ("mlp-width",),
        ("unet-changes",),
        ("preconditioning",),
        ("locality",),
    ),
}


def cases(size: str, options: Any) -> list[Case]:
    """One case a study."""
    if size not in SIZES:
        return [Case("demo", _left_out)]
    folder = options.work / f"studies-{size}"
    return [
        Case(arguments[0], functools.partial(_study, arguments, folder / arguments[0]))
        for arguments in SIZES[size]
    ]


def _left_out() -> dict[str, Any]:
    raise Skip("at this size the frontier is the study that is timed: see its took_seconds")


def _study(arguments: tuple[str, ...], out: Path) -> dict[str, Any]:
    device_for_two()
    if jax.process_count() > 1:
        raise Skip("it times commands of one process each")
    started = time.perf_counter()
    program = "from jdiff.cli import main; main()"
    child.run(program, "study", *arguments, "--no-cache", "--force", "--out", str(out))
    seconds = time.perf_counter() - started
    results = json.loads((out / "results.json").read_text())
    page = (out / "report.html").stat().st_size
    return {
        "command": " ".join(("jdiff study", *arguments, "--no-cache")),
        **{"rows": len(results["rows"]), "study_device": results["device"]},
        **{"study_seconds": seconds, "page_mb": page / 2**20},
    }
