"""Results files: what every one says of where it comes from; written whole, refused if damaged."""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import jax

import jdiff

SCHEMA = 2
RESULTS = Path(__file__).with_name("results")
arguments: list[str] = []  # of this call of the command line, as results tell it
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy")


def device() -> str:
    """The devices in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        cpu = f"{platform.machine()} CPU ({_cpu_model()}, {cores()} cores)"
        return f"{jax.device_count()} x {cpu}"
    return f"{jax.device_count()} x {first.device_kind}"


def cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def path(suite: str, size: str) -> Path:
    """Where a suite's results on this device go: results/DEVICE-SUITE-SIZE.json."""
    kind = jax.devices()[0].device_kind
    kind = f"{kind}-{cores()}-cores" if kind == "cpu" else kind
    name = f"{jax.device_count()}-{kind}-{suite}-{size}"
    return RESULTS / (re.sub(r"[^a-z0-9_]+", "-", name.lower()) + ".json")


def head(suite: str, size: str, settings: dict[str, Any]) -> dict[str, Any]:
    """All of a results file but its rows: device, versions, flags, commit and command."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    return {
        "schema": SCHEMA,
        "suite": suite,
        "size": size,
        "settings": json.loads(json.dumps(settings)),  # as a file gives them back
        "device": device(),
        "versions": {
            "jdiff": jdiff.__version__,
            "python": platform.python_version(),
            **versions,
        },
        "flags": os.environ.get("XLA_FLAGS", ""),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "benchmarks", *_public(arguments)]),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(file: Path, result: dict[str, Any]) -> None:
    """Writes a results file whole, then renames it into place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, suffix=".part") as part:
        part.write(text)
    os.chmod(part.name, 0o644)
    os.replace(part.name, file)


def read(file: Path) -> dict[str, Any]:
    """A results file.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is damaged or of another schema, naming it.
    """
    try:
        found = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no results file of these benchmarks: {error}.") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise ValueError(
            f"{file} must be a results file of schema {SCHEMA}; got schema {schema!r}. Make it "
            "again with python -m benchmarks."
        )
    rows = found.get("rows")
    whole = isinstance(rows, list) and all(
        isinstance(row, dict) and {"case", "status"} <= set(row) for row in rows
    )
    told = all(isinstance(found.get(name), str) for name in ("suite", "size", "device", "command"))
    if not whole or not told or not isinstance(found.get("versions"), dict):
        raise ValueError(
            f"{file} is damaged: it must have rows with a case and a status each, a suite, a size, "
            "a device, versions and a command."
        )
    return found


def _public(arguments: list[str]) -> list[str]:
    """The arguments without the folders of this machine."""
    shown, hide = [], False
    for argument in arguments:
        name, _, value = argument.partition("=")
        private = name in ("--data-dir", "--out", "--peer-python", "--work")
        if not hide and not private:
            shown.append(argument)
        hide = private and not value
    return shown


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        run = lambda *what: subprocess.run(
            [*git, *what], capture_output=True, text=True, check=True
        ).stdout.strip()
        places = ("--", "../jdiff", "*.py", "peers")
        changed = run("diff", "HEAD", *places) + run("status", "--porcelain", *places)
        changes = f"+changes-{zlib.crc32(changed.encode()):08x}" if changed else ""
        return run("rev-parse", "--short", "HEAD") + changes
    except (OSError, subprocess.CalledProcessError):
        return None
