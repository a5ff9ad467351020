"""A suite is a list of cases, and each gives rows that are kept as soon as they are there.

A killed suite leaves whole rows in results/....partial.json and goes on from them; one failing case
is a row with its error and stops no other; a case without what it needs is a row that says so.

In several processes all run the same cases; what is done already, and what is written, is told by
the one that writes.
"""

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from benchmarks import hardware, record, timing
from jdiff import parallel

PEAK = "matmul peak"  # the case that tells it


class Skip(Exception):
    """Raised by a case that cannot run here, with the reason."""


def device_for_two() -> None:
    """Skips what starts a second jax, on a device that this process holds alone."""
    if jax.default_backend() not in ("cpu", "gpu"):
        raise Skip("this process holds the device, which another one could not have too")


@dataclass(frozen=True)
class Case:
    """One question of a suite.

    Attributes:
      name: what its rows are called; unique in the suite.
      run: does the work; a row (JSON values), or several of which each has a "part".
    """

    name: str
    run: Callable[[], dict[str, Any] | list[dict[str, Any]]]


def run(suite: str, size: str, cases: Sequence[Case], settings: dict[str, Any], out: Path) -> Path:
    """Runs what an earlier, killed call has not done yet; returns the path of the results.

    Args:
      suite: its name.
      size: smoke, cpu, accelerator or pod.
      cases: what to do.
      settings: what else the rows depend on: a partial file of other settings is begun anew.
      out: the file.
    """
    partial = partial_of(out)
    head = record.head(suite, size, settings)
    mine = _kept(partial, head) if parallel.is_writer() else []
    rows = json.loads(parallel.same_text_everywhere(json.dumps(mine)))
    done = {row["case"] for row in rows}
    peaks = [row["flops_per_s"] for row in rows if row["case"] == PEAK]
    hardware.start_peak(size, peaks[0] if peaks else None)
    say = parallel.teller()
    write = lambda file: parallel.on_writer(lambda: record.write(file, {**head, "rows": rows}))
    for number, case in enumerate(cases, 1):
        title = f"{suite} [{number}/{len(cases)}] {case.name}"
        if case.name in done:
            say(f"{title}: done before, kept")
            continue
        say(title)
        rows += _made(case)
        write(partial)
    write(out)
    return out


def partial_of(path: Path) -> Path:
    """Where the rows of a suite lie that was not finished, or whose call was not."""
    return path.with_suffix(".partial.json")


def without_folders(text: str) -> str:
    """File names without where they lie on this machine: rows are published."""
    return re.sub(r"(?:/[^\s/\"':|]+)+/", "", text)


def peak(size: str) -> Case:
    """The first case of a suite whose other cases tell a share of the peak."""
    return Case(PEAK, lambda: {"flops_per_s": hardware.matmul_peak(size)})


def each(works: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What each part of a case gives, and the rows of those that fail: they stop no other."""
    found, lost = {}, []
    for part, work in works.items():
        try:
            found[part] = work()
        except Skip as reason:
            lost.append({"part": part, **_skipped(reason)})
        except Exception as error:
            lost.append({"part": part, **_failed(error)})
    return found, lost


def sweep(
    over: str,
    works: dict[str, tuple[int, Callable[[], dict[str, Any]]]],
    numbers: dict[str, Callable[[dict[str, Any]], float | None]],
) -> list[dict[str, Any]]:
    """A row a size, and how numbers of the rows grow with it.

    Args:
      over: what is swept.
      works: part -> (its size, what makes its row).
      numbers: word -> a number of a row; see `timing.exponents`.
    """
    found, lost = each({part: work for part, (_, work) in works.items()})
    values = {word: [number(row) for row in found.values()] for word, number in numbers.items()}
    fits = timing.exponents(over, [works[part][0] for part in found], values)
    return [*({"part": part, **row} for part, row in found.items()), *lost, *fits]


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """The row; one that cannot be kept, as of numbers that are not finite, is a failed one."""
    try:
        json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        return {name: row[name] for name in ("part",) if name in row} | _failed(error)
    return {"status": "ok", **row}


def _skipped(reason: Skip) -> dict[str, Any]:
    return {"status": "skipped", "reason": without_folders(str(reason))}


def _failed(error: Exception) -> dict[str, Any]:
    """Called where it is handled: a failure is a result, and where it came from is printed."""
    traceback.print_exc()
    return {"status": "failed", "error": without_folders(f"{type(error).__name__}: {error}")}


def _made(case: Case) -> list[dict[str, Any]]:
    """The rows of a case, whatever happens in it."""
    started = time.perf_counter()
    try:
        found = case.run()
        rows = [_storable(row) for row in (found if isinstance(found, list) else [found])]
    except Skip as reason:
        rows = [_skipped(reason)]
    except Exception as error:
        rows = [_failed(error)]
    spent = time.perf_counter() - started
    return [{"case": case.name, **row, "took_seconds": spent} for row in rows]


def _kept(partial: Path, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a call that was killed, if it asked the same of the same machine.

    Cases that failed or were skipped are tried again: what they lacked may be there now.
    """
    if not partial.exists():
        return []
    try:
        found = record.read(partial)
    except ValueError as error:
        print(f"{error} It is begun anew.", file=sys.stderr)
        return []
    different = [n for n in head if n not in ("date", "command") and found.get(n) != head[n]]
    if different:
        print(
            f"{partial} was begun with another {', '.join(different)}: begun anew.",
            file=sys.stderr,
        )
        return []
    whole = lambda case: all(row["status"] == "ok" for row in found["rows"] if row["case"] == case)
    return [row for row in found["rows"] if whole(row["case"])]
