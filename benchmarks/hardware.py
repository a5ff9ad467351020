"""What a device can do at most, measured: matmul FLOP/s; and how much memory was taken."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing


def matmul_peak(size: str) -> dict[str, float]:
    """FLOP/s of one device's square matmul: {"float32", "bfloat16"}, at jax's default precision.

    On GPUs and TPUs that of float32 operands is less than float32 (tf32, bf16 passes), as in the
    networks that are held against it. The best of seven calls, after a warm one.
    """
    n = {"smoke": 256, "cpu": 1536}.get(size, 8192)
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        # Random numbers: a product of zeros takes less power, and can be faster than real work.
        a = jax.random.normal(jax.random.key(0), (n, n), jnp.float32).astype(dtype)
        multiply = jax.jit(lambda a: a @ a)
        times = timing.measure(lambda multiply=multiply, a=a: multiply(a), 7)
        found[jnp.dtype(dtype).name] = 2 * n**3 / times["p10"]
    return found


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, Any]]:
    """Fills {"peak_mb", "peak_of"} when it is left.

    On Linux CPUs it is what the process took beyond what it had; on accelerators what the device
    held at most since the process began, since that mark cannot be set back.
    """
    found: dict[str, Any] = {"peak_mb": None, "peak_of": None}
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        yield found
        stats = device.memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            found |= {
                "peak_mb": stats["peak_bytes_in_use"] / 2**20,
                "peak_of": "the device since the process began",
            }
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
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024
