"""Two results files of one suite: what became slower or faster beyond the noise.

A time (or a rate) changed where its p10 - p90 do not overlap and its medians differ by more than
`LEAST`; what only one file has is named. Timings of other devices are no comparison: refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import record, tables

LEAST = 1.05


def run(old: Path, new: Path) -> int:
    """Prints the comparison; returns 1 if anything became slower, else 0."""
    lines, slower = between(record.read(old), record.read(new))
    print("\n".join(lines))
    return 1 if slower else 0


def between(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """The comparison as lines, and how many numbers became slower.

    Raises:
      ValueError: if the files are not of one suite, size and device.
    """
    for name in ("suite", "size", "device"):
        if old[name] != new[name]:
            raise ValueError(
                f"OLD and NEW must be of one {name}; got {old[name]!r} and {new[name]!r}."
            )
    a, b = dict(_timed(old)), dict(_timed(new))
    lines, slower = [], 0
    for key in a:
        if key not in b:
            lines.append(f"gone     {key}")
            continue
        factor, apart = _factor(a[key], b[key])
        if apart and factor > LEAST:
            slower += 1
            lines.append(f"slower   {key}: {factor:.2f} times the time")
        elif apart and factor < 1 / LEAST:
            lines.append(f"faster   {key}: {factor:.2f} times the time")
    lines += [f"new      {key}" for key in b if key not in a]
    same = len(a.keys() & b.keys()) - sum(line.startswith(("slower", "faster")) for line in lines)
    lines.append(f"{same} of {len(a.keys() & b.keys())} timings within the noise.")
    lines += [
        f"{word} {tables.name(row)}: {row.get('error')}"
        for word, rows in (("failed then", old["rows"]), ("failed now", new["rows"]))
        for row in rows
        if row["status"] == "failed"
    ]
    return lines, slower


def _timed(result: dict[str, Any]) -> Iterator[tuple[str, tuple[dict[str, Any], bool]]]:
    """(name, (spread, whether it is a rate)) of every timing that jdiff is answerable for."""
    for row in result["rows"]:
        if row["status"] != "ok":
            continue
        for way, spread in (row.get("seconds") or {}).items():
            if way.startswith("jdiff") and isinstance(spread, dict):
                yield f"{tables.name(row)}, {way}", (spread, False)
        if isinstance(row.get("images_per_s"), dict):
            yield f"{tables.name(row)}, images/s", (row["images_per_s"], True)


def _factor(old: tuple[dict, bool], new: tuple[dict, bool]) -> tuple[float, bool]:
    """New time over old time, and whether the spreads are apart."""
    (a, rate), (b, _) = old, new
    apart = a["p90"] < b["p10"] or b["p90"] < a["p10"]
    return (a["p50"] / b["p50"] if rate else b["p50"] / a["p50"]), apart
