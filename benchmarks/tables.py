"""Results as tables: one of what was measured for each suite, one of ratios beside alternatives."""

from collections.abc import Sequence
from typing import Any

from benchmarks import asked

DASH = "–"


def of(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, lines) of each table of a results file."""
    rows = [row for row in result["rows"] if row["status"] == "ok"]
    made = []
    if result["suite"] == "frontier":
        of_data = [row for row in rows if "data" in row]
        for data in dict.fromkeys(row["data"] for row in of_data):
            made += _frontier(data, [row for row in of_data if row["data"] == data])
    for title, wanted in _MEASURED.items():
        chosen = [row for row in rows if wanted in row and "architecture" in row]
        if chosen and result["suite"] != "frontier":
            made.append(_speed(title, chosen))
    pairs = [(row, ratio) for row in rows for ratio in ratios(row)]
    if pairs:
        lines = [[*beside(result, row, ratio), _seconds(row)] for row, ratio in pairs]
        made.append(("beside alternatives", [*BESIDE, "seconds"], lines))
    made += _differences(rows)
    fits = [row for row in rows if "exponent" in row]
    if fits:
        text = lambda row: f"{row['exponent']:.2f}{_error(row['standard_error'])}"
        made.append(
            (
                "exponents",
                ["what", "exponent"],
                [[f"{name(row)}", text(row)] for row in fits],
            )
        )
    made += _swept([row for row in rows if _is_swept(row)])
    other = [line for row in rows for line in others(result, row)]
    if other:
        made.append(("also", OTHERS, other))
    lost = [row for row in result["rows"] if row["status"] != "ok"]
    if lost:
        why = lambda row: row.get("reason") or row.get("error") or DASH
        made.append(
            (
                "not measured",
                ["what", "status", "why"],
                [[name(row), row["status"], why(row)] for row in lost],
            )
        )
    return made


def name(row: dict[str, Any]) -> str:
    """A row's case, with its part."""
    return row["case"] + (f": {row['part']}" if row.get("part") else "")


def text(table: tuple[str, list[str], list[list[str]]]) -> str:
    """A table for the terminal."""
    title, head, lines = table
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    say = lambda line: "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))
    return "\n".join([title, *("  " + say(line).rstrip() for line in [head, *lines])])


def markdown(table: tuple[str, list[str], list[list[str]]]) -> str:
    """A table for GitHub, without its title."""
    _, head, lines = table
    say = lambda line: "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
    return "\n".join([say(head), "|" + "---|" * len(head), *map(say, lines)])


def spell(value: float | None, digits: int = 3) -> str:
    """A number of a few digits, with thousands separated."""
    if value is None:
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def spell_spread(spread: dict[str, Any]) -> str:
    """p50 (p10 - p90), and a word where the noise is large."""
    return f"{spell_median(spread)[:-1]}, {spread['rounds']} rounds{_noise(spread)})"


def spell_median(spread: dict[str, Any]) -> str:
    """p50 (p10 - p90)."""
    return f"{spell(spread['p50'])} ({spell(spread['p10'])} - {spell(spread['p90'])})"


def _noise(spread: dict[str, Any]) -> str:
    return {True: ", noisy", None: ", too few to tell noise"}.get(spread.get("noisy"), "")


def spell_range(found: dict[str, float] | None) -> str:
    """A mean over seeds with its range, where there is one."""
    if found is None:
        return DASH
    if found["low"] == found["high"]:
        return spell(found["mean"])
    return f"{spell(found['mean'])} ({spell(found['low'])} - {spell(found['high'])})"


def spell_verdicts(verdicts: dict[str, int]) -> str:
    """Each verdict with the number of its runs."""
    return ", ".join(f"{word} {n}" for word, n in verdicts.items())


_MEASURED = {"training": "step_seconds", "sampling": "nfe"}


def _speed(title: str, rows: list[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    sampling = title == "sampling"
    head = ["what", "images", "batch", *(["NFE"] if sampling else []), "parameters",
            "FLOPs an image", "images/s", *(["evaluations/s"] if sampling else []), "model FLOP/s",
            "MFU", "compile s", "peak MB"]  # fmt: skip
    lines = []
    for row in rows:
        rate = row["images_per_s"]
        lines.append(
            [
                name(row),
                "x".join(map(str, row["image_shape"])),
                str(row["batch"]),
                *([str(row["nfe"])] if sampling else []),
                spell(row.get("num_params")),
                _count(row.get("flops_per_image")),
                spell_spread(rate) if isinstance(rate, dict) else spell(rate),
                *([spell(row.get("evaluations_per_s"))] if sampling else []),
                _rate(row.get("model_flops_per_s")),
                _percent(row.get("mfu")),
                spell(row.get("compile_seconds")),
                spell(row.get("peak_mb")),
            ]
        )
    return title, head, lines


def _error(standard_error: float | None) -> str:
    return " (two points)" if standard_error is None else f" ± {standard_error:.2f}"


def _differences(rows: list[dict[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """What alternatives are and where their work differs, once each."""
    lines = {}
    for row in rows:
        if not any(key in row for key in ("peer_about", "peer_versions", "about")):
            continue
        versions = ", ".join(f"{n} {v}" for n, v in row.get("peer_versions", {}).items())
        said = "; ".join(filter(None, (row.get("peer_about"), row.get("about"))))
        counts = [_both(row, key) for key in ("num_params", "flops_per_image")]
        line = [versions, *counts, said]
        lines.setdefault(tuple(line), [name(row), *line])
    if not lines:
        return []
    head = ["what", "versions", "parameters: jdiff / other", "FLOPs an image", "what differs"]
    return [("alternatives", head, list(lines.values()))]


def _both(row: dict[str, Any], key: str) -> str:
    """A count of jdiff's and of the other's, where both are told."""
    if not {key, f"peer_{key}"} <= set(row):
        return DASH
    return f"{_count(row[key])} / {_count(row[f'peer_{key}'])}"


_SAID = (
    *("memorized_fraction", "memorized_control", "novelty", "realism", "frechet_distance"),
    *("frechet_control", "agreement_with_optimal", "train_images_per_s", "sample_images_per_s"),
)


def _frontier(data: str, rows: list[dict[str, Any]]) -> list[tuple[str, list[str], list]]:
    """What each architecture makes and how fast, means and ranges over seeds; and what it costs."""
    images = ", ".join(f"{n:,}" for n in sorted({row["num_train"] for row in rows}))
    head = ["architecture", "verdict", "memorized", "control", "novelty", "realism", "Fréchet",
            "control", "agreement with optimal", "train images/s", "samples/s"]  # fmt: skip
    said = [
        [row["part"], spell_verdicts(row["verdicts"]), *(spell_range(row[c]) for c in _SAID)]
        for row in rows
    ]
    costs = [
        [
            row["part"],
            spell(row["num_params"]),
            _count(row.get("flops_per_image")),
            spell(row["steps"]),
            _percent((row.get("train_mfu") or {}).get("mean")),
            spell(row["nfe"]),
            _percent((row.get("sample_mfu") or {}).get("mean")),
            spell(row.get("compile_seconds")),
        ]
        for row in rows
    ]
    return [
        (f"frontier, {data}, {images} training images", head, said),
        (
            f"frontier, {data}: what it costs",
            ["architecture", "parameters", "FLOPs an image", "steps", "MFU of training", "NFE",
             "MFU of sampling", "compile s"],
            costs,
        ),
    ]  # fmt: skip


BESIDE = ["what", "ratio of seconds", "median (p10 - p90)", "asked"]


def beside(result: dict[str, Any], row: dict[str, Any], ratio: dict[str, Any]) -> list[str]:
    """A line of a table of ratios."""
    return [name(row), ratio["of"], spell_spread(ratio), wanted(result, row, "ratio", ratio)]


def wanted(
    result: dict[str, Any], row: dict[str, Any], field: str, spread: dict[str, Any] | None = None
) -> str:
    """What was asked of a value, and whether it was reached: "at least 2: reached", or ""."""
    found = asked.of(result, row, field)
    if found is None:
        return ""
    return f"{found}: {found.answer(row[field] if spread is None else spread['p50'], spread)}"


def work(row: dict[str, Any]) -> str:
    """The other's parameters and FLOPs an image, each with how many times jdiff's they are."""
    said = []
    for key, word in (("num_params", "parameters"), ("flops_per_image", "FLOPs")):
        mine, other = row.get(key), row.get(f"peer_{key}")
        if mine is not None and other is not None:
            said.append(f"{_count(other)} {word} ({other / mine:.2f} x)")
    return ", ".join(said) or DASH


def ratios(row: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The ratios to alternatives that a row has."""
    found = row.get("ratio")
    if found is None:
        return []
    return found if isinstance(found, list) else [found]


def _seconds(row: dict[str, Any]) -> str:
    return ", ".join(f"{n} {spell(t['p50'])}" for n, t in row["seconds"].items())


# What else a row may hold, and how it is called.
_OTHER = {
    **{"largest_difference": "largest difference", "relative_difference": "relative difference"},
    **{"same_neighbours": "same neighbours"},
    **{"all_seconds": "seconds of all measures, of a linear denoiser, one run"},
    **{"study_seconds": "seconds from the command to the page, one run"},
    **{"fit_seconds": "seconds of the fit", "peak_mb_beyond_data": "peak MB beyond the data"},
    **{"image_error_of_range": "largest error, of the image range"},
    **{"weight_error": "largest error of a posterior weight"},
}
OTHERS = ["what", "measured", "asked"]


def others(result: dict[str, Any], row: dict[str, Any]) -> list[list[str]]:
    """A row's numbers that no other table has: what, how much, and what was asked."""
    line = lambda what, key: [f"{name(row)}, {what}", spell(row[key]), wanted(result, row, key)]
    found = [line(what, key) for key, what in _OTHER.items() if key in row]
    if row.get("not_taken"):
        said = "; ".join(f"{measure}: {why}" for measure, why in row["not_taken"].items())
        found.append([f"{name(row)}, not taken", said, ""])
    if row.get("peak_mb") is not None and "architecture" not in row and not _is_swept(row):
        found.append(line(f"MB of {row['peak_of']}", "peak_mb"))
    flops = row.get("flops_per_s")
    if isinstance(flops, dict):
        seconds = row.get("seconds") or {}
        found += [
            [f"{name(row)}, {way}", _rate(value, seconds.get(way)), ""]
            for way, value in flops.items()
        ]
    elif flops is not None and not _is_swept(row):
        found.append([name(row), _rate(flops), ""])
    return found


def _is_swept(row: dict[str, Any]) -> bool:
    """Whether it is a size of a sweep of a closed form."""
    return isinstance(row.get("flops_per_s"), float) and "jdiff" in (row.get("seconds") or {})


def _swept(rows: list[dict[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Seconds a call, FLOP/s and memory of every size."""
    lines = [
        [
            name(row),
            spell(row["seconds"]["jdiff"]["p50"]),
            _rate(row["flops_per_s"], row["seconds"]["jdiff"]),
            spell(row.get("peak_mb")),
        ]
        for row in rows
    ]
    return [("sweeps", ["what", "seconds", "FLOP/s", "peak MB"], lines)] if lines else []


_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def _unit(value: float) -> tuple[str, float]:
    return next(((unit, size) for unit, size in _UNITS if value >= size), ("", 1.0))


def _rate(value: float | None, seconds: dict[str, Any] | None = None) -> str:
    """FLOP/s; of work whose seconds spread, with its p10 and p90."""
    if value is None:
        return DASH
    unit, size = _unit(value)
    if seconds is None:
        return f"{value / size:.3g} {unit}FLOP/s"
    at = lambda p: value * seconds["p50"] / seconds[p] / size
    spread = seconds | {"p10": at("p90"), "p50": at("p50"), "p90": at("p10")}
    return f"{spell_spread(spread)} {unit}FLOP/s"


def _count(value: float | None) -> str:
    """A count of parameters or FLOPs: "2.47 M"."""
    if value is None:
        return DASH
    unit, size = _unit(value)
    return f"{value / size:.3g} {unit}".rstrip()


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.3g} %"
