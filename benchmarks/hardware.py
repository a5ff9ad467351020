"""What a device can do at most, measured: matmul FLOP/s; and how much memory was taken."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from jdiff import parallel

_PRODUCTS = 4  # a call, so that a call is much longer than its start
# Sides of the matrices: which is the fastest differs between machines.
_CPU_SIDES, _ACCELERATOR_SIDES, _SMOKE_SIDES = (512, 1024, 2048), (4096, 8192), (256,)


_peaks: dict[str, dict[str, float]] = {}  # by size, of this suite


def matmul_peak(size: str) -> dict[str, float]:
    """FLOP/s of one device's square matmul: {"float32", "bfloat16"}, at jax's default precision.

    On GPUs and TPUs that of float32 operands is less than float32 (tf32, bf16 passes), as in the
    networks that are held against it; on CPUs bfloat16 may well be the slower. The best of seven
    calls of four products each, after a warm one, of matrices of several sides, which the backend
    decides on. Measured once a suite, and not again where a killed one goes on.
    """
    if size not in _peaks:
        _peaks[size] = _measured_peak(size)
    return _peaks[size]


def start_peak(size: str, peak: dict[str, float] | None) -> None:
    """A suite starts, of whose peak an earlier, killed process has measured this, or nothing."""
    _peaks.pop(size, None)
    if peak is not None:
        _peaks[size] = peak


def _measured_peak(size: str) -> dict[str, float]:
    large = _CPU_SIDES if jax.default_backend() == "cpu" else _ACCELERATOR_SIDES
    sides = _SMOKE_SIDES if size == "smoke" else large
    return {dtype: max(_matmul(n, dtype) for n in sides) for dtype in ("float32", "bfloat16")}


def _matmul(n: int, dtype: str) -> float:
    # Random numbers: a product of zeros takes less power, and can be faster than real work. Of
    # deviation 1 / sqrt(n), so that products neither grow nor vanish.
    a = (jax.random.normal(jax.random.key(0), (n, n), jnp.float32) / n**0.5).astype(dtype)
    chain = jax.jit(lambda a: jax.lax.fori_loop(0, _PRODUCTS, lambda _, x: x @ a, a))
    chain(a).block_until_ready()
    return 2 * _PRODUCTS * n**3 / min(timing.seconds(lambda: chain(a)) for _ in range(7))


def share_of_peak(flops_per_s: float, dtype: str, peak: dict[str, float]) -> dict[str, Any]:
    """{"model_flops_per_s", "peak_flops_per_s", "mfu"} of work on all devices.

    Args:
      flops_per_s: of the model.
      dtype: that it computes in.
      peak: one device's, as `matmul_peak` gives it.
    """
    most = peak_of_all(dtype, peak)
    return {
        "model_flops_per_s": flops_per_s,
        "peak_flops_per_s": most,
        "mfu": flops_per_s / most,
    }


def peak_of_all(dtype: str, peak: dict[str, float]) -> float:
    """FLOP/s of all devices, of one's `matmul_peak`; simulated devices of one CPU share its."""
    return peak[dtype] * (1 if jax.default_backend() == "cpu" else parallel.num_devices())


@contextlib.contextmanager
def program_memory() -> Iterator[dict[str, Any]]:
    """Fills {"peak_mb", "peak_of"} when it is left: of the largest program compiled meanwhile.

    As its compiler laid it out, so exact and the same in every run, on CPUs too, whatever the
    process had before: arguments (weights and data), results and temporaries, what shares its place
    counted once; on one of several devices. What a library takes within a call on a CPU is not in
    it. None where nothing was compiled meanwhile, or the backend does not tell.
    """
    found: dict[str, Any] = {"peak_mb": None, "peak_of": None}
    programs = getattr(jax.local_devices()[0].client, "live_executables", lambda: [])
    before = programs()  # kept, so that no other takes the place of one
    known = {id(program) for program in before}
    yield found
    made = [program for program in programs() if id(program) not in known]
    try:
        sizes = [_megabytes(program.get_compiled_memory_stats()) for program in made]
    except (jax.errors.JaxRuntimeError, AttributeError):
        return
    if sizes:
        found |= {"peak_mb": max(sizes), "peak_of": "the program and its data"}


def _megabytes(stats: Any) -> float:
    """Of a compiled program; an argument whose place a result takes is counted once."""
    taken = stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
    return (taken - stats.alias_size_in_bytes) / 2**20


@contextlib.contextmanager
def process_memory() -> Iterator[dict[str, Any]]:
    """Fills {"peak_mb", "peak_of"} when it is left: what the process took beyond what it had.

    For a process of its own, since one that worked before has room of that work. None where the
    memory is a device's, or the system is not Linux.
    """
    found: dict[str, Any] = {"peak_mb": None, "peak_of": None}
    if jax.default_backend() != "cpu":
        yield found
        return
    try:
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark counts from here
    except OSError:  # another system
        yield found
        return
    yield found
    found |= {"peak_mb": _resident("VmHWM") - before, "peak_of": "the process, beyond before"}


def _resident(field: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = (float(line.split()[1]) for line in lines if line.startswith(field))
    return next(found, math.nan) / 1024
