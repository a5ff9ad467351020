"""Results files: what every one says of where it comes from; written whole, refused if damaged."""

import importlib.metadata
import json
import math
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
_HIDDEN = ("--out", "--peer-python", "--work")
# What of the environment changes speed, here and in peers: compilers, threads, allocators.
_FLAGS = (
    *("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_DEFAULT_MATMUL_PRECISION", "NPROC"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"),
)


def device() -> str:
    """The devices in words."""
    first = jax.devices()[0]
    if first.platform == "cpu":
        cpu = f"{platform.machine()} CPU ({_cpu_model()}, {cores()} cores)"
        return f"{jax.device_count()} x {cpu}"
    return f"{jax.device_count()} x {first.device_kind}"


def cores() -> int:
    """The CPU cores that this process may use: those it may run on, or what its quota is worth."""
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    quota = _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return found if quota is None else max(1, min(found, math.ceil(quota)))


def keep_to_cores() -> None:
    """Keeps this process and its children to as many cores as its quota is worth.

    Without, jdiff would start a thread for every core of the machine and be halted mostly.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: cores()])


def short(told: str) -> str:
    """A `device` in few words: without its number if that is 1, and without trade marks.

    Example:
      >>> short("1 x x86_64 CPU (Intel(R) Xeon(R) Processor, 2 cores)")
      'Intel Xeon, 2 cores'
    """
    count, kind = told.split(" x ", 1)
    cpu = re.fullmatch(r"(\S*) ?CPU \((.*), (\d+ cores)\)", kind)
    if cpu:
        machine, model, number = cpu.groups()
        model = re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU\b|@.*", "", model)
        model = " ".join(model.split())
        kind = f"{model if model not in ('', 'unknown') else f'{machine} CPU'}, {number}"
    return kind if count == "1" else f"{count} x {kind}"


def path(suite: str, size: str, folder: Path = RESULTS) -> Path:
    """Where a suite's results on this device go: FOLDER/DEVICE-SUITE-SIZE.json."""
    count = jax.device_count()
    name = f"{count} {short(device()).removeprefix(f'{count} x ')} {suite} {size}"
    return folder / (re.sub(r"[^a-z0-9_]+", "-", name.lower()) + ".json")


def of_another_device(file: Path) -> bool:
    """Whether a file holds the results of another device whose name is as short."""
    try:
        return read(file)["device"] != device()
    except (ValueError, OSError):  # none, or nothing that would be missed
        return False


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
        "flags": " ".join(f"{name}={os.environ[name]}" for name in _FLAGS if os.environ.get(name)),
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
    words = ("suite", "size", "device", "command", "date")
    told = all(isinstance(found.get(name), str) for name in words)
    told &= all(isinstance(found.get(name), dict) for name in ("versions", "settings"))
    if not whole or not told or not {"flags", "commit"} <= set(found):
        raise ValueError(
            f"{file} is damaged: it must have rows with a case and a status each, a suite, a size, "
            "settings, a device, versions, flags, a commit, a command and a date."
        )
    return found


def _public(arguments: list[str]) -> list[str]:
    """The arguments without the folders of this machine; where data lie decides what is run."""
    shown, hide = [], False
    for argument in arguments:
        name, _, value = argument.partition("=")
        private = name in (*_HIDDEN, "--data-dir")
        if not hide and not private:
            shown.append(argument)
        if name == "--data-dir":
            shown += ["--data-dir", "DIR"]
        hide = private and not value
    return shown


def _quota(membership: Path, root: Path) -> float | None:
    """The CPUs that the control groups of this process grant it, None if they set no limit.

    Args:
      membership: /proc/self/cgroup.
      root: where control groups are mounted, of version 2 (cpu.max) or 1 (cpu.cfs_quota_us).
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:  # another system
        return None
    found = []
    for _, controllers, own in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / "cpu" if controllers else root
        # A container sees its own group as the root; elsewhere every group above sets limits too.
        own = Path(own.strip("/"))
        for folder in {mounted / above for above in (own, *own.parents)}:
            try:
                if controllers:
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    quota, period = ((folder / name).read_text().strip() for name in names)
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if quota not in ("max", "-1"):
                    found.append(int(quota) / int(period))
            except (OSError, ValueError):  # a group without a limit has no file
                continue
    return min(found, default=None)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def _commit() -> str:
    """The commit; with changes, or where there is none, what jdiff and benchmarks consist of."""
    here = Path(__file__).parent
    folders = (Path(jdiff.__file__).parent, here)
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    sources = f"{zlib.crc32(b''.join(path.read_bytes() for path in files)):08x}"
    try:
        run = lambda *what: subprocess.run(
            ["git", "-C", str(here), *what], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = run("status", "--porcelain", "--", "../jdiff", "*.py", "peers")
        return run("rev-parse", "--short", "HEAD") + (f"+changes-{sources}" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return f"sources-{sources}"
