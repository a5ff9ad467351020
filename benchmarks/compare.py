"""Two results files of one suite: what became slower or faster beyond the noise.

A time (or a rate) changed where its p10 - p90 do not overlap and its medians differ by more than
`LEAST`; a number without a spread, such as the minutes of a study, where it differs by more than
`LEAST_ALONE`. What only one file has, or what fails in one, is named: a case that is gone or fails
now counts as worse. Timings of other devices or settings are no comparison: refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import record, tables

LEAST = 1.05
LEAST_ALONE = 1.25
# Numbers without a spread: seconds, megabytes; and rates.
_ALONE = ("study_seconds", "all_seconds", "fit_seconds", "peak_mb_beyond_data")
_RATES = ("train_images_per_s", "sample_images_per_s")


def run(old: Path, new: Path) -> int:
    """Prints the comparison; returns 1 if anything became worse, else 0."""
    lines, worse = between(record.read(old), record.read(new))
    print("\n".join(lines))
    return 1 if worse else 0


def between(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """The comparison as lines, and how many numbers became worse.

    Raises:
      ValueError: if the files are not of one suite, size, device and settings.
    """
    for name in ("suite", "size", "device", "settings"):
        if old[name] != new[name]:
            raise ValueError(
                f"OLD and NEW must be of one {name}; got {old[name]!r} and {new[name]!r}."
            )
    versions = [
        f"{name} {old['versions'].get(name)} -> {version}"
        for name, version in new["versions"].items()
        if old["versions"].get(name) != version
    ]
    lines = [f"versions {', '.join(versions)}"] if versions else []
    a, b = dict(_timed(old)), dict(_timed(new))
    worse = changed = 0
    for key in a:
        if key not in b:
            worse += 1
            lines.append(f"gone     {key}")
            continue
        factor, beyond = _factor(a[key], b[key])
        if beyond:
            changed += 1
            worse += factor > 1
            word = "slower" if factor > 1 else "faster"
            lines.append(f"{word}   {key}: {factor:.2f} times the time")
    lines += [f"new      {key}" for key in b if key not in a]
    both = len(a.keys() & b.keys())
    lines.append(f"{both - changed} of {both} timings within the noise.")
    failing = {tables.name(row) for row in old["rows"] if row["status"] == "failed"}
    for row in new["rows"]:
        if row["status"] == "failed":
            known = tables.name(row) in failing
            worse += not known
            word = "fails as before" if known else "fails now"
            lines.append(f"{word} {tables.name(row)}: {row.get('error')}")
    return lines, worse


def _timed(result: dict[str, Any]) -> Iterator[tuple[str, tuple[dict[str, float], bool]]]:
    """(name, (spread, whether it is a rate)) of every number that jdiff is answerable for."""
    for row in result["rows"]:
        if row["status"] != "ok":
            continue
        for way, spread in (row.get("seconds") or {}).items():
            if way.startswith("jdiff") and isinstance(spread, dict):
                yield f"{tables.name(row)}, {way}", (spread, False)
        if isinstance(row.get("images_per_s"), dict):
            yield f"{tables.name(row)}, images/s", (row["images_per_s"], True)
        for key in _ALONE:
            if row.get(key) is not None:
                yield f"{tables.name(row)}, {key}", (_alone(row[key]), False)
        for key in _RATES:
            if row.get(key) is not None:
                yield f"{tables.name(row)}, {key}", (_alone(row[key]["mean"]), True)


def _alone(value: float) -> dict[str, float]:
    """A number without a spread, as one that may be off by as much as is no change."""
    half = LEAST_ALONE**0.5
    return {"p10": value / half, "p50": value, "p90": value * half}


def _factor(old: tuple[dict, bool], new: tuple[dict, bool]) -> tuple[float, bool]:
    """New time over old time, and whether it is a change."""
    (a, rate), (b, _) = old, new
    apart = a["p90"] < b["p10"] or b["p90"] < a["p10"]
    factor = a["p50"] / b["p50"] if rate else b["p50"] / a["p50"]
    return factor, apart and not 1 / LEAST <= factor <= LEAST
