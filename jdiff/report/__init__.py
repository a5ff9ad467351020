"""Rows in, figures and one self-contained HTML page out; nothing is computed here.

A `Row` is one architecture: its record, as results.json has it, and its `Pictures`; `group` puts
the training seeds of an architecture together. `write` makes the page, `show` the same in a
notebook, `table` the same as text. `write_evaluation` makes the page of one set of samples, and
`evaluation_table` the same as text.
"""

from jdiff.report.evaluation_page import render_evaluation, write_evaluation
from jdiff.report.evaluation_tables import evaluation_table
from jdiff.report.grid import write_grid
from jdiff.report.groups import Group, Spread, group
from jdiff.report.inline import show, table
from jdiff.report.law_page import laws_table, render_laws, write_laws
from jdiff.report.law_rows import LawRow
from jdiff.report.page import render, write
from jdiff.report.rows import SCHEMA, Pictures, Row, check

__all__ = [
    "SCHEMA",
    "Group",
    "LawRow",
    "Pictures",
    "Row",
    "Spread",
    "check",
    "evaluation_table",
    "group",
    "laws_table",
    "render",
    "render_evaluation",
    "render_laws",
    "show",
    "table",
    "write",
    "write_evaluation",
    "write_grid",
    "write_laws",
]
