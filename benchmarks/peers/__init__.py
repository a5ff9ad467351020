"""UNets of other libraries, each in a process of its own, timed by turns against jdiff's.

A worker is a script of this folder, run as `python NAME.py ARGUMENTS`, which says one JSON object a
line: first {"ready": true, "num_params", "flops_per_image", "device", "versions", "about"}, after
one step that is not counted, or {"skipped": the reason}; then, for each number n that it is told,
{"seconds_per_step"} of n steps in a row, waited for at their end. It ends with its input.

ARGUMENTS are a JSON object:

    image_shape       [H, W, C]
    batch             images a step
    channels          of each resolution, from the highest
    layers_per_block  residual blocks a resolution on the way down
    work              "train": the loss of benchmarks/bare.py, its gradient, an AdamW update;
                      "forward": the network alone, no gradient
    variant           "default", what its users get; "tuned", what its experts would set; and, of
                      torch, "compiled", the same by torch.compile
    threads           of the CPU; null leaves it to the library

All arrays are float32, on the GPU that the library sees or else on the CPU; a GPU multiplies them
as the library has it by default, and tuned as fast as jax does (tf32). Torch's threads wait for
each other by spinning: on a CPU that other programs use as well its two threads are many times
slower than one, so that ratios from a busy machine flatter jdiff.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import child, suite

FOLDER = Path(__file__).parent
NAMES = (
    "dewml_unet",
    "denoising_diffusion_pytorch_unet",
    "diffusers_unet",
    "hackable_diffusion_unet",
    "jdiff_unet",
)
READY = ("ready", "num_params", "flops_per_image", "device", "versions", "about")
# glibc keeps what is freed instead of giving it back to the system: a step's page faults cost more
# than a tenth of it on a CPU. Read when a process starts, so the parent sets it.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


class Peer:
    """A worker and its process, which lives in a `with` block.

    Attributes:
      about: what it said when it was ready (see the head of this file), from the block's start.

    Example:
      with Peer("diffusers_unet", arguments, options.peer_python) as peer:
          timing.turns({"jdiff": lambda: ours(5), "diffusers": lambda: peer.steps(5)}, rounds=7)
    """

    def __init__(
        self,
        name: str,
        arguments: dict[str, Any],
        pythons: Sequence[str | Path] = (),
        *,
        script: Path | None = None,
        timeout: float = 600.0,
    ):
        """Starts nothing yet.

        Args:
          name: one of `NAMES`, or any name for a `script`.
          arguments: see the head of this file.
          pythons: interpreters to try after this one: some peers want another Python, or pin
            another jax.
          script: a worker of your own; None is this folder's `name`.
          timeout: the seconds that an answer may take, that of the compiling start included.

        Raises:
          ValueError: on an unknown name.
        """
        if script is None and name not in NAMES:
            raise ValueError(f"name must be one of {', '.join(NAMES)}; got {name!r}.")
        self.about: dict[str, Any] = {}
        self._name, self._timeout = name, timeout
        self._script = FOLDER / f"{name}.py" if script is None else script
        self._pythons = list(dict.fromkeys([sys.executable, *map(str, pythons)]))
        self._arguments = arguments

    def __enter__(self) -> "Peer":
        """Starts the worker with the first Python that has what it needs.

        Raises:
          benchmarks.suite.Skip: if none has, with the reason of each.
          ValueError: if one of `pythons` cannot be started.
          RuntimeError: if the worker fails, with the end of what it wrote.
        """
        reasons = []
        for python in self._pythons:
            self._start(python)
            try:
                said = self._hear(set(READY))
            except BaseException:
                self._stop()
                raise
            if "skipped" not in said:
                del said["ready"]
                self.about = said
                return self
            self._stop()
            reasons.append(suite.without_folders(str(said["skipped"])))
        raise suite.Skip("; ".join(dict.fromkeys(reasons)))

    def __exit__(self, *error: object) -> None:
        self._stop()

    def steps(self, count: int) -> float:
        """Seconds per step of `count` steps in a row."""
        process = self._process
        assert process.stdin is not None
        try:
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the missing answer says so, with its last words
        seconds = self._hear({"seconds_per_step"})["seconds_per_step"]
        if not (isinstance(seconds, float) and seconds > 0):
            raise RuntimeError(f"{self._name} took {seconds!r} seconds a step.")
        return seconds

    def _start(self, python: str) -> None:
        tuned = self._arguments.get("variant") in ("tuned", "compiled")
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        try:
            self._process = subprocess.Popen(
                [python, str(self._script), json.dumps(self._arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=child.environment() | (KEEP_MEMORY if tuned else {}),
            )
        except OSError as error:
            self._errors.close()
            raise ValueError(f"pythons must be interpreters; got {python}: {error}.") from None

    def _hear(self, expected: set[str]) -> dict[str, Any]:
        """The worker's next message, which has all of `expected`, or "skipped"."""
        process, started = self._process, time.perf_counter()
        assert process.stdout is not None
        late = threading.Timer(self._timeout, process.kill)
        late.start()
        try:
            line = process.stdout.readline()
        finally:
            late.cancel()
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if isinstance(said, dict) and ("skipped" in said or expected <= set(said)):
            return said
        if time.perf_counter() - started >= self._timeout:
            what = f"gave no answer within {self._timeout:g} s"
        elif line:
            what = f"said {line.strip()[:200]!r}, which is no message"
        else:
            what = f"ended with status {process.wait()}"
        raise RuntimeError(f"{self._name} {what}; its last words: {self._last_words()}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return suite.without_folders(" | ".join(lines[-4:])) or "none"

    def _stop(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()
