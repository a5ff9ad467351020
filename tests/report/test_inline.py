"""The text table lines up; `show` prints it outside notebooks and draws inside."""

import re
import types

import pytest

from jdiff.report import Row, inline, show, table


@pytest.mark.core
def test_the_text_table_lines_up(rows):
    lines = table(rows).splitlines()
    assert len(lines) == 1 + 4 + 1  # heads, rows, the error of the failed one
    starts = [match.start() for match in re.finditer(r"(?<=  )\S|^\S", lines[0])]
    assert len(starts) == 10
    for line in lines[1:5]:
        cells = [line[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        assert all(cell and not cell.startswith(" ") for cell in cells)
        # Two blanks at least part a cell from the next.
        assert all(cell.endswith("  ") for cell in cells[:-1])
    assert lines[5] == "resnet failed: loss is NaN at step <420>"


def test_the_text_table_says_the_rows_numbers(rows):
    cells = re.split(r" {2,}", table(rows).splitlines()[2])
    assert cells == [
        "unet",
        "creates",
        "0.312 [0.302–0.323] (0.011)",
        "0.129",
        "0.871 (0.971)",
        "0.104 (0.103)",  # 0.1035 in binary lies below its decimal
        "0.473",
        "353 k",
        "5,120",
        "402",
    ]
    assert re.split(r" {2,}", table(rows).splitlines()[3]) == ["mlp"] + 9 * ["–"]


def test_show_prints_the_table_outside_notebooks(rows, data, capsys):
    show(rows, data)
    assert capsys.readouterr().out == table(rows) + "\n"


def test_show_displays_table_and_figures_in_a_notebook(rows, data, monkeypatch):
    ipython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(ipython, "get_ipython", lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(rows, data)
    kinds = [type(thing).__name__ for thing in shown]
    assert kinds == ["HTML"] + 6 * ["HTML", "Image"]  # each figure has its title
    assert 'data-row="unet"' in shown[0].data
    assert all(image.data.startswith(b"\x89PNG") for image in shown[2::2])


def test_show_in_a_notebook_without_pictures_has_the_table_alone(monkeypatch):
    ipython = pytest.importorskip("IPython")
    shown = []
    monkeypatch.setattr(ipython, "get_ipython", lambda: types.SimpleNamespace(kernel=None))
    monkeypatch.setattr("IPython.display.display", shown.append)
    show([Row({"label": "mlp", "status": "ok"})])
    assert len(shown) == 1


def test_without_ipython_it_is_no_notebook(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "IPython", None)
    assert not inline._in_notebook()
