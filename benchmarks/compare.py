"""Two results files of one suite: what became better or worse beyond the noise.

Where a row has ratios to alternatives that took turns with jdiff, these are compared, since they do
not tell how busy the machine was that day; else times and rates themselves. Numbers with a spread
changed where their p10 - p90 do not overlap and their medians differ by more than `LEAST`; those
without one, such as the minutes of a study, where they differ by more than `_ALONE` says.

A row that is gone, or fails now, counts as worse; one that is skipped now is named, with its
reason, and so is one whose work is another now, which compares with nothing. What a frontier found
(memorization, realism, verdicts) is told where it changed beyond the range of its seeds, and is
neither better nor worse. Results of other devices or settings are no comparison: refused.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record, tables

LEAST = 1.05


class Number(NamedTuple):
    """A number that jdiff is answerable for.

    Attributes:
      spread: {"p10", "p50", "p90"}.
      of: what it counts: "time", "memory" or "error".
      more_is_better: whether it is a rate.
      least: the factor from which on it has changed.
      least_apart: the difference from which on it has.
    """

    spread: dict[str, float]
    of: str = "time"
    more_is_better: bool = False
    least: float = LEAST
    least_apart: float = 0.0


# Numbers without a spread: of what, the factor and the difference from which on they have changed.
_ALONE = {
    **{name: ("time", 1.25, 0.0) for name in ("study_seconds", "all_seconds", "fit_seconds")},
    "compile_seconds": ("time", 1.5, 1.0),
    **{name: ("memory", 1.25, 16.0) for name in ("peak_mb", "peak_mb_beyond_data")},
    **{name: ("error", 2.0, 0.0) for name in ("image_error_of_range", "weight_error")},
}
# What says how much work a row is.
_WORK = (
    *("architecture", "image_shape", "batch", "num_params", "num_samples", "samples", "solver"),
    *("nfe", "sigma", "sigmas", "budget", "schedule", "num_train", "images", "queries"),
    *("references", "points", "dim", "k", "num_features", "levels", "measures"),
    *("peer_num_params", "peer_flops_per_image"),
)
# What a frontier finds, as ranges over training seeds.
_FOUND = ("memorized_fraction", "novelty", "realism", "frechet_distance")
# Rates over training seeds, as the frontier has them.
_RATES = ("train_images_per_s", "sample_images_per_s")
_LEAST_RATE = 1.25


def run(old: Path, new: Path) -> int:
    """Prints the comparison; returns 1 if anything became worse, else 0."""
    lines, worse = between(record.read(old), record.read(new))
    print("\n".join(lines))
    return 1 if worse else 0


def between(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """The comparison as lines, and how many rows and numbers became worse.

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
    lines += [
        f"{name:8} {old[name]} -> {new[name]}"
        for name in ("commit", "flags")
        if old[name] != new[name]
    ]
    before = {tables.name(row): row for row in old["rows"]}
    now = {tables.name(row): row for row in new["rows"]}
    lines += _machine(before, now)
    worse = changed = both = 0
    for name, row in before.items():
        after = _of_case(now, row)
        if row["status"] != "ok" or (after is not None and after["status"] == "failed"):
            continue  # what fails is told below
        if after is None:
            worse += 1
            lines.append(f"gone     {name}")
        elif after["status"] == "skipped":
            lines.append(f"skipped  {name}: {after.get('reason')}")
        elif other := _other_work(row, after):
            lines.append(f"no match {name}, whose work is another: {other}")
        else:
            same_peer = row.get("peer_versions") == after.get("peer_versions")
            a, b = (dict(_numbers(one, same_peer)) for one in (row, after))
            shared = [key for key in a if key in b]
            both += len(shared)
            for key in shared:
                factor, beyond = _factor(a[key], b[key])
                changed += beyond
                worse += beyond and factor > 1
                if beyond:
                    word = _WORDS[a[key].of][factor < 1]
                    said = f"{factor:.2f} times the {a[key].of}"
                    lines.append(f"{word:8} {name}, {key}: {said}")
            lines += [f"not told {name}, {key}, which OLD has" for key in a if key not in b]
            lines += [f"finds    {name}, {said}" for said in _other_findings(row, after)]
    lines += [f"new      {name}" for name in now if name not in before]
    lines.append(f"{both - changed} of {both} numbers within the noise.")
    for name, row in now.items():
        if row["status"] == "failed":
            known = name in before and before[name]["status"] == "failed"
            worse += not known
            word = "fails as before" if known else "fails now"
            lines.append(f"{word} {name}: {row.get('error')}")
    return lines, worse


_WORDS = {
    "time": ("slower", "faster"),
    "memory": ("larger", "smaller"),
    "error": ("coarser", "finer"),
}


def _machine(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How fast the machine itself was, where both tell it: what times without a ratio rest on."""
    of = lambda rows: rows.get("matmul peak", {}).get("flops_per_s") or {}
    shared = [(dtype, now_at / of(before)[dtype]) for dtype, now_at in of(now).items()
              if dtype in of(before)]  # fmt: skip
    said = ", ".join(f"{dtype} {ratio:.2f}" for dtype, ratio in shared)
    return [f"matmul peak over that of OLD: {said}"] if said else []


def _other_work(row: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs of the work of two rows of one name; "" if nothing does."""
    # A budget of seconds buys more steps of what became faster.
    names = _WORK if "budget" in row else (*_WORK, "steps")
    both = [name for name in names if name in row and name in after and row[name] != after[name]]
    return ", ".join(f"{name} {row[name]} -> {after[name]}" for name in both)


def _other_findings(row: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What a frontier's row says otherwise than before, beyond the ranges of its seeds."""
    for name in _FOUND:
        a, b = row.get(name), after.get(name)
        if not (isinstance(a, dict) and isinstance(b, dict)):
            continue
        apart = a["high"] < b["low"] or b["high"] < a["low"]
        if apart and not math.isclose(a["mean"], b["mean"], rel_tol=LEAST - 1):
            yield f"{name} {tables.spell_range(a)} -> {tables.spell_range(b)}"
    if row.get("verdicts") != after.get("verdicts"):
        said = (tables.spell_verdicts(one["verdicts"]) for one in (row, after))
        yield "verdict {} -> {}".format(*said)


def _of_case(rows: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """The row of the same name, else that of its whole case, which failed or was skipped."""
    whole = rows.get(row["case"])
    lost = whole if whole is not None and whole["status"] != "ok" else None
    return rows.get(tables.name(row), lost)


def _numbers(row: dict[str, Any], same_peer: bool) -> Iterator[tuple[str, Number]]:
    """(name, number) of a row; its ratios say more than its seconds if the peer is the same."""
    ratios = [one for one in tables.ratios(row) if " / jdiff" in one["of"]] if same_peer else []
    if ratios:
        for one in ratios:
            yield one["of"], Number(one, more_is_better=True)
    elif isinstance(row.get("images_per_s"), dict):
        yield "images/s", Number(row["images_per_s"], more_is_better=True)
    else:
        for way, spread in (row.get("seconds") or {}).items():
            if way.startswith("jdiff") and isinstance(spread, dict):
                yield way, Number(spread)
    for key, (of, least, apart) in _ALONE.items():
        if row.get(key) is not None:
            # Memory that is counted in another way is another number.
            name = f"MB of {row['peak_of']}" if key == "peak_mb" else key
            yield name, Number(_alone(row[key]), of, False, least, apart)
    for key in _RATES:
        if row.get(key) is not None:
            yield key, Number(_alone(row[key]["mean"]), "time", True, _LEAST_RATE)


def _alone(value: float) -> dict[str, float]:
    return {"p10": value, "p50": value, "p90": value}


def _factor(old: Number, new: Number) -> tuple[float, bool]:
    """How many times the time, memory or error it is now, and whether that is a change."""
    a, b = old.spread, new.spread
    if old.more_is_better:
        a, b = b, a
    apart = a["p90"] < b["p10"] or b["p90"] < a["p10"]
    far = abs(b["p50"] - a["p50"]) > old.least_apart
    if a["p50"] == 0:  # an error that was none, memory that was there
        return float("inf"), apart and far
    factor = b["p50"] / a["p50"]
    return factor, apart and far and not 1 / old.least <= factor <= old.least
