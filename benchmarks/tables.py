"""Results as tables: one of what was measured for each suite, one of ratios beside alternatives."""

from collections.abc import Sequence
from typing import Any

DASH = "–"


def of(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, lines) of each table of a results file."""
    rows = [row for row in result["rows"] if row["status"] == "ok"]
    made = []
    if result["suite"] == "frontier":
        for data in dict.fromkeys(row["data"] for row in rows):
            made.append(_frontier(data, [row for row in rows if row["data"] == data]))
    for title, wanted in _MEASURED.items():
        chosen = [row for row in rows if wanted in row and "architecture" in row]
        if chosen and result["suite"] != "frontier":
            made.append(_speed(title, chosen))
    pairs = [(row, ratio) for row in rows for ratio in ratios(row)]
    if pairs:
        head = ["what", "ratio of", "median (p10 - p90)", "seconds"]
        lines = [
            [name(row), ratio["of"], spell_spread(ratio), _seconds(row)] for row, ratio in pairs
        ]
        made.append(("beside alternatives", head, lines))
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
    other = [line for row in rows for line in _others(row)]
    if other:
        made.append(("also", ["what", "measured"], other))
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
    word = {True: ", noisy", None: ", too few to tell noise"}.get(spread.get("noisy"), "")
    return (
        f"{spell(spread['p50'])} ({spell(spread['p10'])} - {spell(spread['p90'])}, "
        f"{spread['rounds']} rounds{word})"
    )


def spell_range(found: dict[str, float] | None) -> str:
    """A mean over seeds with its range, where there is one."""
    if found is None:
        return DASH
    if found["low"] == found["high"]:
        return spell(found["mean"])
    return f"{spell(found['mean'])} ({spell(found['low'])} - {spell(found['high'])})"


_MEASURED = {"training": "step_seconds", "sampling": "nfe"}


def _speed(title: str, rows: list[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    sampling = title == "sampling"
    head = ["what", "images", "batch", *(["NFE"] if sampling else []), "parameters", "images/s",
            "model FLOP/s", "MFU", "compile s", "peak MB"]  # fmt: skip
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
                spell_spread(rate) if isinstance(rate, dict) else spell(rate),
                _flops(row.get("model_flops_per_s")),
                DASH if row.get("mfu") is None else f"{100 * row['mfu']:.1f} %",
                spell(row["compile_seconds"]),
                spell(row["peak_mb"]),
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
    return f"{row[key] / 1e6:.3g} M / {row[f'peer_{key}'] / 1e6:.3g} M"


_COLUMNS = (
    *("memorized_fraction", "memorized_control", "novelty", "realism", "frechet_distance"),
    *("frechet_control", "agreement_with_optimal"),
)


def _frontier(data: str, rows: list[dict[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    head = ["architecture", "verdict", "memorized", "control", "novelty", "realism", "Fréchet",
            "control", "agreement with optimal", "parameters", "steps", "train images/s",
            "samples/s"]  # fmt: skip
    verdict = lambda row: ", ".join(f"{word} {n}" for word, n in row["verdicts"].items())
    lines = [
        [
            row["part"],
            verdict(row),
            *(spell_range(row[column]) for column in _COLUMNS),
            spell(row["num_params"]),
            spell(row["steps"]),
            spell((row["train_images_per_s"] or {}).get("mean")),
            spell((row["sample_images_per_s"] or {}).get("mean")),
        ]
        for row in rows
        if "verdicts" in row
    ]
    images = ", ".join(sorted({f"{row['num_train']:,}" for row in rows if "verdicts" in row}))
    return f"frontier, {data}, {images} training images", head, lines


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
    **{"same_neighbours": "same neighbours", "all_seconds": "seconds, all measures"},
    **{"study_seconds": "seconds from the command to the page"},
    **{"fit_seconds": "seconds of the fit", "peak_mb_beyond_data": "peak MB beyond the data"},
    **{"image_error_of_range": "largest error, of the image range"},
    **{"weight_error": "largest error of a posterior weight"},
}


def _others(row: dict[str, Any]) -> list[list[str]]:
    found = [
        [f"{name(row)}, {word}", spell(row[key])] for key, word in _OTHER.items() if key in row
    ]
    if "peak_mb" in row and "architecture" not in row:
        found.append([f"{name(row)}, MB of {row['peak_of']}", spell(row["peak_mb"])])
    flops = row.get("flops_per_s")
    if isinstance(flops, dict):
        found += [[f"{name(row)}, {way}", _flops(value)] for way, value in flops.items()]
    elif flops is not None:
        found.append([name(row), _flops(flops)])
    return found


def _flops(value: float | None) -> str:
    if value is None:
        return DASH
    for unit, size in (("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("MFLOP/s", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} FLOP/s"
