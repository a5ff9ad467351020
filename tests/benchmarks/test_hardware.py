"""Peaks, memory, cores and flags are those of this machine, whatever ran before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import hardware, record, timing

NUM = 2**18  # float32: one MB


def test_a_programs_memory_is_its_arguments_results_and_temporaries():
    x, call = jnp.zeros(NUM), jax.jit(lambda x: x + 1)
    with hardware.program_memory() as memory:
        call(x).block_until_ready()
    # One in, one out; to the byte but for what a compiler rounds up.
    assert memory["peak_mb"] == pytest.approx(2, abs=0.01)
    assert memory["peak_of"]
    with hardware.program_memory() as again:
        call(x).block_until_ready()
    assert again == {"peak_mb": None, "peak_of": None}  # nothing was compiled


def test_a_donated_argument_is_counted_once_and_the_largest_program_is_told():
    donating = jax.jit(lambda x: x + 2, donate_argnums=0)
    small = jax.jit(lambda x: x - 1)
    x, y = jnp.zeros(3 * NUM), jnp.zeros(NUM)
    with hardware.program_memory() as memory:
        donating(x).block_until_ready()
        small(y).block_until_ready()
    assert memory["peak_mb"] == pytest.approx(3, abs=0.01)


def test_a_process_is_told_what_it_took_beyond_what_it_had():
    had = np.ones(2**23)
    with hardware.process_memory() as memory:
        took = np.ones(2**23)
    if memory["peak_mb"] is None:
        pytest.skip("this system does not tell")
    # 64 MB; `had` does not count, and little else happens meanwhile.
    assert 60 < memory["peak_mb"] < 100
    assert had.nbytes == took.nbytes


@pytest.mark.parametrize(
    ("size", "backend", "least", "most"),
    [
        ("smoke", "cpu", 1, 256),
        ("cpu", "cpu", 512, 2048),
        ("accelerator", "cpu", 512, 2048),
        ("cpu", "gpu", 4096, 8192),
        ("accelerator", "tpu", 4096, 8192),
    ],
)
def test_the_backend_decides_how_large_a_matmul_is(size, backend, least, most, monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(hardware, "_matmul", lambda n, dtype: asked.append(n) or float(n % 5000))
    found = hardware._measured_peak(size)
    assert least <= min(asked)
    assert max(asked) == most
    best = float(max(n % 5000 for n in asked))  # not the largest, nor the last: the fastest
    assert found == {"float32": best, "bfloat16": best}


def test_a_matmul_has_its_flops(monkeypatch):
    monkeypatch.setattr(timing, "seconds", lambda work: work() is None or 2.0)
    assert hardware._matmul(8, "float32") == 4 * 2 * 8**3 / 2.0


GROUPS = {
    "version 2": ("0::/a/b\n", {"a/b/cpu.max": "150000 100000"}, 1.5),
    "of a group above": ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 1"}, 0.5),
    "of a container": ("0::/\n", {"cpu.max": "300000 100000"}, 3.0),
    "the least": ("0::/a\n", {"cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2.0),
    "none": ("0::/a\n", {"a/cpu.max": "max 100000"}, None),
    "no files": ("0::/a\n", {}, None),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/c\n0::/\n",
        {"cpu/c/cpu.cfs_quota_us": "250000\n", "cpu/c/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "version 1, none": (
        "3:cpu,cpuacct:/c\n",
        {"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"},
        None,
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_quotas_of_control_groups_are_read(name, tmp_path):
    membership, files, expected = GROUPS[name]
    (tmp_path / "cgroup").write_text(membership)
    root = tmp_path / "root"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    assert record._quota(tmp_path / "cgroup", root) == expected
    assert record._quota(tmp_path / "absent", root) is None


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.5, 2), (64.0, 4), (None, 4)])
def test_cores_are_no_more_than_a_quota_is_worth(quota, cores, monkeypatch):
    monkeypatch.setattr(record.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setattr(record, "_quota", lambda membership, root: quota)
    assert record.cores() == cores


@pytest.mark.parametrize(
    ("told", "short"),
    [
        ("1 x x86_64 CPU (Intel(R) Xeon(R) Processor, 2 cores)", "Intel Xeon, 2 cores"),
        ("1 x x86_64 CPU (Intel(R) Core(TM) i7 CPU @ 2.8GHz, 8 cores)", "Intel Core i7, 8 cores"),
        ("8 x x86_64 CPU (AMD EPYC, 2 cores)", "8 x AMD EPYC, 2 cores"),
        ("1 x aarch64 CPU (unknown, 4 cores)", "aarch64 CPU, 4 cores"),
        ("1 x NVIDIA H200", "NVIDIA H200"),
        ("4 x TPU v4", "4 x TPU v4"),
    ],
)
def test_devices_have_short_names(told, short):
    assert record.short(told) == short


def test_flags_hold_what_sets_threads_and_allocators(monkeypatch):
    for name in record._FLAGS:
        monkeypatch.delenv(name, raising=False)
    assert record.head("metrics", "smoke", {})["flags"] == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_x=1")
    monkeypatch.setenv("MKL_NUM_THREADS", "")
    flags = record.head("metrics", "smoke", {})["flags"]
    assert flags == "XLA_FLAGS=--xla_x=1 OMP_NUM_THREADS=1"


def test_exponents_are_fitted_where_there_is_something_to_fit():
    values = {"seconds": [1.0, 2.0, 4.0], "peak MB": [1.0, None, 3.0], "bytes": [0.0, 1.0, 2.0]}
    (row,) = timing.exponents("images", [1, 2, 4], values)
    assert row["part"] == "seconds against images"
    np.testing.assert_allclose(row["exponent"], 1, rtol=1e-12)
    assert timing.exponents("images", [3], {"seconds": [1.0]}) == []
    with pytest.raises(ValueError, match="two sizes or more"):
        timing.exponent([3, 3], [1.0, 2.0])
    with pytest.raises(ValueError, match="positive"):
        timing.exponent([1, 2], [0.0, 2.0])
