"""The command line in several processes that work together, as on the hosts of a pod."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.devices

JDIFF = "from jdiff.cli import main; main()"


def start(program: Sequence[str], job: dict[str, str]) -> subprocess.Popen:
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        [sys.executable, *program],
        env={**os.environ, **quick, **job},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(programs: Sequence[Sequence[str]]) -> list[tuple[int, str, str]]:
    """Programs as the tasks of one SLURM job: (status, stdout, stderr) of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        **{"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost"},
        "SLURM_NTASKS": str(len(programs)),
    }
    task = lambda number: {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
    started = [start(program, job | task(number)) for number, program in enumerate(programs)]
    ended = [process.communicate(timeout=300) for process in started]
    return [(p.returncode, *told) for p, told in zip(started, ended, strict=True)]


def study(out: Path, *more: str) -> list[str]:
    command = "study demo --architectures linear mlp:width=16,depth=2 --budget steps:8"
    return ["-c", JDIFF, *command.split(), "--num-samples", "32", "--out", str(out), *more]


def test_a_study_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    process = start(study(alone), {})
    two = run([study(together, "--distributed")] * 2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert [status for status, _, _ in two] == [0, 0], two
    # One process tells what is done and what came of it, and one alone.
    (_, told, said), (_, silent, unsaid) = two
    assert "report: " in told
    assert "[2/2]" in said
    assert "report: " not in silent
    assert "[2/2]" not in unsaid
    runs = sorted(path.parent.name for path in together.glob("runs/*/row.json"))
    assert len(runs) == 2
    assert runs == sorted(p.parent.name for p in alone.glob("runs/*/row.json"))
    for name in runs:
        with (
            np.load(alone / "runs" / name / "samples.npz") as one,
            np.load(together / "runs" / name / "samples.npz") as other,
        ):
            # Sums over devices round differently; eight steps of AdamW and 18 levels carry it on.
            np.testing.assert_allclose(other["images"], one["images"], atol=5e-4)
            assert one["images"].std() > 0.05
    again = run([study(together, "--distributed")] * 2)
    assert [status for status, _, _ in again] == [0, 0], again
    assert again[0][2].count("done before, kept") == 2


def test_a_folder_that_is_not_shared_is_refused_by_all(tmp_path: Path) -> None:
    two = run([study(tmp_path / name, "--distributed") for name in ("here", "there")])
    assert [status for status, _, _ in two] == [2, 2], two
    for (_, _, said), sees in zip(two, ("sees", "does not see"), strict=True):
        assert "must lie on a disk that all processes share" in said
        assert f"this one {sees} what" in said
    assert not list(tmp_path.glob("*/runs/*"))


def test_a_process_of_no_job_is_refused(tmp_path: Path) -> None:
    process = start(study(tmp_path, "--distributed"), {})
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "distributed: the environment of this process tells of no TPU pod, SLURM" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_benchmarks_of_two_processes_write_one_file_and_go_on_from_it(tmp_path: Path) -> None:
    words = ["-m", "benchmarks", "sampling", "--architectures", "linear", "--distributed", "--out"]
    # Results lie on a disk of the writing process alone.
    outs = [tmp_path / name / "found.json" for name in ("here", "there")]
    programs = [[*words, str(out)] for out in outs]
    two = run(programs)
    assert [status for status, _, _ in two] == [0, 0], two
    whole = json.loads(outs[0].read_text())
    assert {row["status"] for row in whole["rows"]} == {"ok"}
    assert whole["device"].startswith("2 x ")
    assert not outs[1].parent.exists()
    assert "sampling (smoke)" in two[0][1]
    assert "sampling (smoke)" not in two[1][1]
    # As a kill after two cases leaves it: known to one process only.
    outs[0].with_suffix(".partial.json").write_text(
        json.dumps({**whole, "rows": whole["rows"][:2]})
    )
    again = run(programs)
    assert [status for status, _, _ in again] == [0, 0], again
    assert again[0][2].count("done before, kept") == 2
    assert json.loads(outs[0].read_text())["rows"][:2] == whole["rows"][:2]
