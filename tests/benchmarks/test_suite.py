"""Suites keep whole rows, go on after a kill, report failures; timings are what they say."""

import json
import time

import numpy as np
import pytest

from benchmarks import hardware, record, suite, timing
from benchmarks.suite import Case, Skip


@pytest.fixture
def out(tmp_path):
    return tmp_path / "found.json"


def rows_of(path) -> list:
    return record.read(path)["rows"]


def test_a_row_a_case_with_where_it_comes_from(out):
    cases = [
        Case("one", lambda: {"value": 1}),
        Case("two", lambda: [{"part": "a"}, {"part": "b"}]),
    ]
    path = suite.run("metrics", "smoke", cases, {"data": None}, out)
    result = record.read(path)
    assert [(row["case"], row.get("part")) for row in result["rows"]] == [
        *(("one", None), ("two", "a"), ("two", "b"))
    ]
    assert {row["status"] for row in result["rows"]} == {"ok"}
    assert {"device", "versions", "flags", "commit", "command", "date"} <= set(result)
    # Until the whole call, maybe of more suites, is done: it removes the file.
    assert rows_of(suite.partial_of(out)) == result["rows"]


def test_a_failing_case_and_one_without_its_needs_stop_no_other(out, capsys):
    def fail() -> dict:
        raise ValueError("no such thing")

    def skip() -> dict:
        raise Skip("no peer here")

    rows = rows_of(
        suite.run("metrics", "smoke", [Case("a", fail), Case("b", skip), Case("c", dict)], {}, out)
    )
    assert [row["status"] for row in rows] == ["failed", "skipped", "ok"]
    assert rows[0]["error"] == "ValueError: no such thing"
    assert rows[1]["reason"] == "no peer here"
    assert "Traceback" in capsys.readouterr().err


def killed(out, **settings) -> None:
    """Leaves what a call leaves that is killed in its second case."""

    def kill() -> dict:
        raise KeyboardInterrupt

    cases = [Case("first", lambda: {"value": 1}), Case("second", kill)]
    with pytest.raises(KeyboardInterrupt):
        suite.run("metrics", "smoke", cases, settings, out)
    assert not out.exists()


def test_a_killed_suite_leaves_whole_rows_and_goes_on_from_them(out):
    killed(out)
    assert [row["case"] for row in rows_of(out.with_suffix(".partial.json"))] == ["first"]

    def again() -> dict:
        raise AssertionError("done before")

    cases = [Case("first", again), Case("second", lambda: {"value": 2})]
    rows = rows_of(suite.run("metrics", "smoke", cases, {}, out))
    assert [row["value"] for row in rows] == [1, 2]


def test_lists_of_settings_are_the_same_settings(out):
    """A file gives lists back where tuples were."""
    killed(out, architectures=(), seeds=(0, 1))
    again = [Case("first", lambda: {"value": 9})]
    found = suite.run("metrics", "smoke", again, {"architectures": (), "seeds": (0, 1)}, out)
    assert rows_of(found)[0]["value"] == 1


def test_a_row_that_cannot_be_kept_is_a_failure_of_its_case(out):
    cases = [Case("nan", lambda: {"value": float("nan")}), Case("next", lambda: {"value": 1})]
    rows = rows_of(suite.run("metrics", "smoke", cases, {}, out))
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert "JSON" in rows[0]["error"]
    parts = [{"part": "a", "value": float("inf")}, {"part": "b", "value": 1}]
    other = out.with_name("other.json")
    rows = rows_of(suite.run("metrics", "smoke", [Case("parts", lambda: parts)], {}, other))
    told = [(row["part"], row["status"]) for row in rows]
    assert told == [("a", "failed"), ("b", "ok")]


def test_a_part_that_fails_stops_no_other(out):
    def fail() -> dict:
        raise OSError("no /home/somebody/x")

    def skip() -> dict:
        raise Skip("not here")

    def case() -> list[dict]:
        found, lost = suite.each({"a": fail, "b": lambda: {"value": 1}, "c": skip})
        assert found == {"b": {"value": 1}}
        return [{"part": part, **row} for part, row in found.items()] + lost

    rows = rows_of(suite.run("metrics", "smoke", [Case("sizes", case)], {}, out))
    told = [(row["part"], row["status"], row.get("error", row.get("reason"))) for row in rows]
    assert told == [
        *(("b", "ok", None), ("a", "failed", "OSError: no x"), ("c", "skipped", "not here"))
    ]


def test_all_shares_of_a_run_are_of_one_peak(out, monkeypatch):
    """Of a run that was killed too: what it measured first is not measured again."""
    monkeypatch.setattr(hardware, "_peaks", {})
    measured = iter([{"float32": 2.0}, {"float32": 5.0}])
    monkeypatch.setattr(hardware, "_measured_peak", lambda size: next(measured))

    def kill() -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        suite.run("metrics", "smoke", [suite.peak("smoke"), Case("a", kill)], {}, out)
    monkeypatch.setattr(hardware, "_peaks", {})  # another process
    cases = [suite.peak("smoke"), Case("a", lambda: {"peak": hardware.matmul_peak("smoke")})]
    peak, row = rows_of(suite.run("metrics", "smoke", cases, {}, out))
    assert peak["flops_per_s"] == row["peak"] == {"float32": 2.0}


def test_folders_are_not_published(out):
    def fail() -> dict:
        raise OSError("no /home/somebody/data/x.npz")

    rows = rows_of(suite.run("metrics", "smoke", [Case("a", fail)], {}, out))
    assert rows[0]["error"] == "OSError: no x.npz"


def test_other_settings_or_another_schema_begin_anew(out, capsys):
    killed(out, data="digits")
    cases = [Case("first", lambda: {"value": 3})]
    assert rows_of(suite.run("metrics", "smoke", cases, {"data": "other"}, out))[0]["value"] == 3
    assert "another settings" in capsys.readouterr().err

    partial = suite.partial_of(out)
    partial.write_text(json.dumps({"schema": 1, "rows": []}))
    suite.run("metrics", "smoke", cases, {}, out)
    assert "schema 2" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_case_that_failed_or_was_skipped_is_tried_again(out, status):
    """All of it: the rows beside a failed one would else keep the case from being tried."""
    rows = [
        {"case": "first", "part": "a", "status": "ok"},
        {"case": "first", "part": "b", "status": status, "error": "x"},
    ]
    head = record.head("metrics", "smoke", {})
    record.write(suite.partial_of(out), {**head, "rows": rows})
    made = rows_of(suite.run("metrics", "smoke", [Case("first", lambda: {"value": 1})], {}, out))
    assert [(row["status"], row["value"]) for row in made] == [("ok", 1)]


def without(field: str) -> str:
    """A whole results file but for one entry."""
    head = record.head("metrics", "smoke", {})
    return json.dumps({n: value for n, value in head.items() if n != field} | {"rows": []})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "no results file"),
        ("[]", "schema"),
        ('{"schema": 1}', "schema 1"),
        ('{"schema": 2, "suite": "metrics"}', "damaged"),
        ('{"schema": 2, "suite": "metrics", "rows": [{"case": "a"}]}', "damaged"),
        (without("settings"), "damaged.*settings"),
        (without("flags"), "damaged.*flags"),
        (without("commit"), "damaged.*commit"),
        (without("versions"), "damaged.*versions"),
    ],
)
def test_damaged_results_are_named(out, text, what):
    out.write_text(text)
    with pytest.raises(ValueError, match=f"found.json.*{what}"):
        record.read(out)


def test_the_command_does_not_tell_folders(monkeypatch):
    given = ["frontier", "--data-dir", "/a/b", "--out=/c/d", "--size", "cpu", "--work", "/e"]
    monkeypatch.setattr(record, "arguments", given)
    assert record.head("frontier", "cpu", {})["command"] == (
        "python -m benchmarks frontier --data-dir DIR --size cpu"
    )
    monkeypatch.setattr(record, "arguments", ["frontier", "--data-dir=/a/b"])
    assert record.head("frontier", "cpu", {})["command"].endswith("frontier --data-dir DIR")


def test_spreads_and_turns():
    assert timing.spread([1.0, 3.0])["noisy"] is None  # too few to tell
    found = timing.spread([1.0, 2.0, 3.0])
    assert found["p50"] == 2
    assert found["rounds"] == 3
    assert found["noisy"]
    assert not timing.spread([1.0, 1.1, 1.2])["noisy"]
    order = []

    def way(name: str, seconds: float):
        def work() -> float:
            order.append(name)
            return seconds

        return work

    found = timing.turns({"other": way("other", 3.0), "ours": way("ours", 2.0)}, 3)
    # Every second round goes backwards, so that neither always comes first.
    assert order == ["other", "ours", "ours", "other", "other", "ours"]
    assert found["ratio"]["of"] == "other / ours"
    assert found["ratio"]["p50"] == 1.5


def test_short_work_is_done_until_it_can_be_timed():
    calls = []
    once = timing.steady(lambda: calls.append(time.sleep(0.004)))
    assert len(calls) == 2  # that which may compile, and one that says how long it takes
    per_call = once()
    # No call sleeps less than 4 ms, so 50 ms are at most 13 calls.
    assert 1 < len(calls) - 2 <= 13
    assert per_call >= 0.004
    calls.clear()
    assert timing.steady(lambda: calls.append(time.sleep(0.06)))() >= 0.06
    assert len(calls) == 3


def test_exponents_are_those_of_a_power_law():
    sizes = np.array([1.0, 2.0, 5.0, 9.0])
    found = timing.exponent(sizes, 3 * sizes**1.7)
    np.testing.assert_allclose(found["exponent"], 1.7, rtol=1e-12)
    assert found["standard_error"] < 1e-12
    # Noise of one part in a hundred cannot hide in an error of nothing.
    two = timing.exponent([1.0, 2.0], [3.0, 6.0])
    np.testing.assert_allclose(two["exponent"], 1.0, rtol=1e-12)
    assert two["standard_error"] is None
    noisy = timing.exponent(sizes, 3 * sizes**1.7 * np.array([1.01, 0.99, 1.01, 0.99]))
    assert 1e-3 < noisy["standard_error"] < 0.05
