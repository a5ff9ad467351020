"""All results as one page of tables and figures, and README's part that is made from them.

`python -m benchmarks report` writes results/README.md and the figures beside it, and replaces what
stands between the marks in README.md; a test fails when that part is not what the results say.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import asked, plots, record, tables

BEGIN = "<!-- made by `python -m benchmarks report`, from here -->"
END = "<!-- to here -->"
SUITES = ("frontier", "training", "sampling", "closed_forms", "metrics", "studies")


def write(results: Path, readme: Path) -> list[Path]:
    """Writes the page, the figures and the README's part; returns what was written.

    Raises:
      FileNotFoundError: if there is no results file, or no README.
      ValueError: on a damaged results file, or a README without the marks.
    """
    found = read(results)
    text = readme.read_text(encoding="utf-8")
    changed = replaced(text, part(found))  # refused before anything is written
    made = []
    for result in found:
        for data, rows in frontiers(result):
            path = results / figure(result, data)
            plots.frontier(rows, *caption(result, data, rows), path)
            made.append(path)
    for path, content in ((results / "README.md", page(found)), (readme, changed)):
        part_of = path.with_suffix(".part")
        part_of.write_text(content, encoding="utf-8")
        part_of.replace(path)
        made.append(path)
    return made


def read(results: Path) -> list[dict[str, Any]]:
    """All whole results of a folder: by suite, then by device."""
    passing = (".partial.json", "-smoke.json")  # of a killed call; of one that says nothing
    files = sorted(f for f in results.glob("*.json") if not f.name.endswith(passing))
    if not files:
        raise FileNotFoundError(f"{results} holds no results: make some with python -m benchmarks.")
    found = [record.read(file) for file in files]
    order = lambda r: (SUITES.index(r["suite"]) if r["suite"] in SUITES else 99, r["device"])
    return sorted(found, key=order)


def replaced(readme: str, text: str) -> str:
    """README with `text` between the marks.

    Raises:
      ValueError: if it does not have each mark once.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold {BEGIN!r} and {END!r} once each.")
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def part(found: list[dict[str, Any]]) -> str:
    """README's part: the frontiers, and every ratio to an alternative."""
    lines = []
    for result in found:
        for data, rows in frontiers(result):
            title, about = caption(result, data, rows)
            lines += [f"![Realism against memorization: {title}](benchmarks/results/"
                      f"{figure(result, data)})", ""]  # fmt: skip
            lines += [f"{title}: {about} (`{result['command']}`).", ""]
    rows = [(result, row) for result in found for row in result["rows"] if row["status"] == "ok"]
    devices = list(dict.fromkeys(_column(result) for result in found))
    lines += [
        "The alternative's seconds over jdiff's, median (p10 - p90): above 1 jdiff is the faster. "
        "*Asked* is what this project asked of itself, of a machine with two cores (of the loop "
        "and of accuracies on any device), and the median reached it or missed it.",
        *("", _by_device([cell for pair in rows for cell in _ratios(*pair)], devices), ""),
    ]
    others = [cell for pair in rows for cell in _others(*pair)]
    if others:
        lines += ["What else was asked for:", "", _by_device(others, devices), ""]
    lines.append("All tables, with device, versions and commands: `benchmarks/results/README.md`.")
    return "\n".join(lines)


# A line of a table and one of its columns: what, asked, work of the alternative; device, value.
_Cell = tuple[tuple[str, str, str], str, str]


def _ratios(result: dict[str, Any], row: dict[str, Any]) -> Iterator[_Cell]:
    # Packages beside measures have no accelerator.
    on_host = result["suite"] == "metrics" and "CPU" not in result["device"]
    for ratio in tables.ratios(row):
        wanted = asked.of(result, row, "ratio")
        said = tables.spell_median(ratio) + (": the other on the host's CPU" if on_host else "")
        if wanted is not None:
            said += f": {wanted.answer(ratio['p50'], ratio)}"
        of = "" if ratio["of"].endswith(" / jdiff") else f", {ratio['of']}"
        what = f"{tables.name(row)}{of}"
        yield (what, _asked(row, "ratio"), tables.work(row)), _column(result), said


def _others(result: dict[str, Any], row: dict[str, Any]) -> Iterator[_Cell]:
    """What was asked for and is no ratio."""
    for what, value, wanted in tables.others(result, row):
        if wanted:
            limit, answer = wanted.split(": ")
            yield (what, limit, ""), _column(result), f"{value}: {answer}"


def _column(result: dict[str, Any]) -> str:
    """The device, and the size where it is not the one for such a device."""
    usual = "cpu" if "CPU" in result["device"] else "accelerator"
    size = "" if result["size"] == usual else f", size {result['size']}"
    return record.short(result["device"]) + size


def _asked(row: dict[str, Any], field: str) -> str:
    """Told of a row's name, whatever the device."""
    return str(asked.ASKED.get((row["case"], field), ""))


def _by_device(cells: list[_Cell], devices: list[str]) -> str:
    """A line for all that is measured on any device, a column a device; without empty columns."""
    devices = [one for one in devices if any(device == one for _, device, _ in cells)]
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for line, device, said in cells:
        lines.setdefault(line, {})[device] = said
    worked = any(work not in ("", tables.DASH) for _, _, work in lines)
    head = [
        "what",
        "asked",
        *devices,
        *(["parameters and FLOPs of the alternative"] if worked else []),
    ]
    body = [
        [what, limit, *(told.get(one, "") for one in devices), *([work] if worked else [])]
        for (what, limit, work), told in lines.items()
    ]
    return tables.markdown(("", head, body))


def caption(result: dict[str, Any], data: str, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """What stands above a frontier's figure, and below that."""
    first = rows[0]
    sizes = " and ".join(f"{n:,}" for n in sorted({row["num_train"] for row in rows}))
    budget = f"{first['budget']['unit']} {first['budget']['amount']:,.0f}"
    schedule = first.get("schedule", "constant")
    rate = "" if schedule == "constant" else f", {schedule} learning rate"
    about = (
        f"{sizes} training images; {budget}, of {first['batch']} images each step{rate}; "
        f"{first['solver']}, {first['sigmas']}"
    )
    return f"{data}, on {record.short(result['device'])}", about


def text(result: dict[str, Any]) -> str:
    """One results file for the terminal."""
    return "\n".join(tables.text(table) for table in tables.of(result))


def figure(result: dict[str, Any], data: str) -> str:
    """The name of a frontier's figure."""
    words = f"frontier {data} {record.short(result['device'])} {result['size']}"
    return re.sub(r"[^a-z0-9_]+", "-", words.lower()) + ".png"


def page(found: list[dict[str, Any]]) -> str:
    """All tables and figures, as Markdown."""
    lines = [
        "# Measured",
        "",
        "Made by `python -m benchmarks report` from the JSON files beside this page; do not edit.",
        "Medians with the 10th and 90th percentile; alternatives took turns with jdiff, A B B A.",
        "A ratio above 1 means that jdiff is the faster.",
    ]
    for result in found:
        versions = ", ".join(f"{n} {v}" for n, v in result["versions"].items())
        lines += [
            *("", f"## {result['suite']}, size {result['size']}, {record.short(result['device'])}"),
            "",
            f"{result['device']}; {versions}"
            + (f"; {result['flags']}" if result["flags"] else "")
            + f"; commit {result['commit']}, {result['date']}.",
            *("", f"    {result['command']}"),
        ]
        for data, _ in frontiers(result):
            lines += ["", f"![{data}]({figure(result, data)})"]
        for table in tables.of(result):
            lines += ["", f"### {table[0][0].upper()}{table[0][1:]}", "", tables.markdown(table)]
    return "\n".join(lines) + "\n"


def frontiers(result: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(data set, its rows that can be drawn) of a frontier's results."""
    if result["suite"] != "frontier":
        return []
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row["status"] == "ok" and row.get("realism") and row.get("memorized_fraction"):
            found.setdefault(row["data"], []).append(row)
    return list(found.items())
