"""What every result says of where it comes from, and how it is written."""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import jdiff

SCHEMA = 1
RESULTS = Path(__file__).with_name("results")


def device() -> str:
    """The devices in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        cpu = f"{platform.machine()} CPU ({_cpu_model()}, {os.cpu_count()} cores)"
        return f"{jax.device_count()} x {cpu}"
    return f"{jax.device_count()} x {first.device_kind}"


def write(suite: str, size: str, rows: list[dict[str, Any]], out: Path | None) -> Path:
    """Writes one suite's rows with device, versions, flags, commit and command.

    Args:
      suite: which.
      size: smoke, cpu or accelerator.
      rows: its rows, JSON values.
      out: the file; None is results/<device>-<suite>-<size>.json.
    """
    slug = re.sub(
        r"[^a-z0-9]+", "-", f"{jax.device_count()}-{jax.devices()[0].device_kind}".lower()
    )
    out = RESULTS / f"{slug}-{suite}-{size}.json" if out is None else out
    result = {
        "schema": SCHEMA,
        "suite": suite,
        "size": size,
        "device": device(),
        "versions": {
            "jdiff": jdiff.__version__,
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "date": time.strftime("%Y-%m-%d"),
        "rows": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=out.parent, delete=False, suffix=".part") as file:
        json.dump(result, file, indent=1, allow_nan=False)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, out)
    return out


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
