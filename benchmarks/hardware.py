"""What a device can do at most, measured: matmul FLOP/s; and how much memory was taken."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from jdiff import parallel

_CHAIN = 10  # products a call, so that a call is much longer than its start


def matmul_peak(size: str) -> dict[str, float]:
    """FLOP/s of one device's square matmul: {"float32", "bfloat16"}, at jax's default precision.

    On GPUs and TPUs that of float32 operands is less than float32 (tf32, bf16 passes), as in the
    networks that are held against it; on CPUs bfloat16 may well be the slower. The best of seven
    calls of ten products each, after a warm one.
    """
    n = {"smoke": 256, "cpu": 1024}.get(size, 8192)
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        # Random numbers: a product of zeros takes less power, and can be faster than real work. Of
        # deviation 1 / sqrt(n), so that products neither grow nor vanish.
        a = (jax.random.normal(jax.random.key(0), (n, n), jnp.float32) / n**0.5).astype(dtype)
        chain = jax.jit(lambda a: jax.lax.fori_loop(0, _CHAIN, lambda _, x: x @ a, a))
        chain(a).block_until_ready()
        seconds = min(timing.seconds(lambda chain=chain, a=a: chain(a)) for _ in range(7))
        found[jnp.dtype(dtype).name] = 2 * _CHAIN * n**3 / seconds
    return found


def share_of_peak(flops_per_s: float, dtype: str, peak: dict[str, float]) -> dict[str, Any]:
    """{"model_flops_per_s", "peak_flops_per_s", "mfu"} of work on all devices.

    Args:
      flops_per_s: of the model.
      dtype: that it computes in.
      peak: one device's, as `matmul_peak` gives it.
    """
    # Simulated devices of one CPU share its peak.
    devices = 1 if jax.default_backend() == "cpu" else parallel.num_devices()
    most = peak[dtype] * devices
    return {
        "model_flops_per_s": flops_per_s,
        "peak_flops_per_s": most,
        "mfu": flops_per_s / most,
    }


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, Any]]:
    """Fills {"peak_mb", "peak_of"} when it is left.

    On Linux CPUs it is what the process took beyond what it had, which may have room of earlier
    work; on accelerators what the device held at most since the process began, where that mark was
    passed meanwhile, else None, since it cannot be set back.
    """
    found: dict[str, Any] = {"peak_mb": None, "peak_of": None}
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        peak = lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
        before = peak()
        yield found
        if peak() > before:
            found |= {"peak_mb": peak() / 2**20, "peak_of": "the device, weights and data included"}
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
