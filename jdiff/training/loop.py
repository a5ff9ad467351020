"""The training loop: compiled steps, held-out losses, checkpoints and the progress bar around them.

What a step computes stands in step.py. The loop keeps the device busy (the host runs two calls
ahead, no more), the history in one array a call, and never saves weights that are not finite.
"""

import dataclasses
import functools
import inspect
import os
import sys
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jdiff import _check, _pixels, parallel
from jdiff.data import ImageData, batches
from jdiff.denoisers.network import NetworkDenoiser, default_preconditioning, warn_of_detour
from jdiff.training.checkpoints import Checkpoints
from jdiff.training.rundir import RunDirectory, as_arrays, describe_key, describe_module
from jdiff.training.state import TrainConfig, TrainState
from jdiff.training.step import Programs, programs

# Folded into the user's key first; sampling folds another constant, so one key serves both.
TRAIN = 0
_INIT, _STEPS, _HELD_OUT = 0, 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class TrainResult:
    """What training gives.

    Attributes:
      denoiser: a NetworkDenoiser (of `train_levels` a PerLevelDenoiser) with averaged weights.
      history: arrays "step" and "loss" (every step, the weights of that moment), "held_out_step"
        and "held_out_loss" (averaged weights, the same draws every time).
      seconds: {"compile", "train"}: the first call beyond a step's time; all steps without
        evaluation and checkpoints. Only what this call did: a resumed run counts its rest.
      images_per_s: training examples a second, without the first step; None after fewer than two.
    """

    denoiser: Any
    history: dict[str, np.ndarray]
    seconds: dict[str, float]
    images_per_s: float | None


def train(
    network: nn.Module,
    data: ImageData,
    config: TrainConfig | None = None,
    *,
    key: jax.Array,
    run_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> TrainResult:
    """Trains a network to denoise.

    Args:
      network: a linen module, apply(variables, x [B, H, W, C], c_noise [B], labels, train).
      data: images and held-out images; labels are used if the network has `num_classes`.
      config: how; None takes the defaults of `TrainConfig`.
      key: typed threefry key: initialisation and batches, nothing else.
      run_dir: where config.json, metrics.jsonl and checkpoints go; an interrupted run given the
        same arguments goes on from its last checkpoint, bit for bit as if never stopped (on the
        CPU). None keeps nothing.
      progress: shows a progress bar on stderr.

    Returns:
      A `TrainResult`.

    Warns:
      UserWarning: if a network that is meant to constrain the samples is given a preconditioning
        that leads the noisy image round it.

    Raises:
      TypeError: if `network` is no linen module or is not called so, `data` no ImageData, or the
        key of another kind.
      ValueError: if the run directory belongs to another configuration, labels are missing, F is
        not like x, or a batch does not suit batch statistics.
      FloatingPointError: if the training loss stops being finite; the last good checkpoint stays.

    Example:
      >>> import jdiff
      >>> data = jdiff.data.load("toy:gaussian_2d")
      >>> network = jdiff.networks.create("mlp", data.image_shape, width=16, depth=2)
      >>> config = TrainConfig(steps=2, batch_size=8, warmup=0)
      >>> result = train(network, data, config, key=jax.random.key(0), progress=False)
      >>> result.history["loss"].shape
      (2,)
    """
    config = TrainConfig() if config is None else config
    check_arguments(network, data, config, key)
    preconditioning = config.preconditioning or default_preconditioning(network)
    warn_of_detour(network, preconditioning)
    data_std = deviation(data)
    compiled = programs(network, config, data.image_shape)
    train_key = jax.random.fold_in(key, TRAIN)
    host_state = jax.device_get(compiled.init(jax.random.fold_in(train_key, _INIT)))

    run = None
    if run_dir is not None:
        run = _Run(run_dir, describe_run(network, data, config, preconditioning, data_std, key))
    lines: list[dict] = []
    if run is not None:
        host_state, lines = run.resume(host_state)
    step = int(host_state.step)
    state = parallel.stack(host_state)
    cdf = None if data.weights is None else jnp.asarray(batches.cumulative(data.weights))
    conditional = getattr(network, "num_classes", None) is not None
    labels = (data.labels, data.held_out_labels) if conditional else (None, None)
    std = np.float32(data_std)
    level = None if isinstance(config.noise, str) else np.float32(config.noise)
    steps_key = jax.random.fold_in(train_key, _STEPS)
    # One key for all runs, whatever theirs: held-out losses are compared between them.
    held_out_key = jax.random.fold_in(jax.random.key(TRAIN, impl="threefry2x32"), _HELD_OUT)
    training_set = parallel.replicate((data.images, labels[0], cdf, std, steps_key, level))
    held_out = parallel.replicate((data.held_out, labels[1], None, std, held_out_key, level))

    eval_every = config.eval_every or max(1, config.steps // 20)
    checkpoint_every = config.checkpoint_every or max(1, config.steps // 10)
    clock = _Clock(config.batch_size)
    bar = tqdm(
        total=config.steps,
        initial=step,
        desc=f"train {type(network).__name__}",
        unit="step",
        disable=not (progress and parallel.is_writer()),
        mininterval=0.5 if sys.stderr.isatty() else 5,
    )
    try:
        written = len(lines)
        if not lines:
            lines += [_held_out_line(compiled, state, held_out, step, config)]
        while step < config.steps:
            stop = min(config.steps, (step // eval_every + 1) * eval_every)
            if run is not None:  # without a directory nothing is saved
                stop = min(stop, (step // checkpoint_every + 1) * checkpoint_every)
            state, values = clock.run(compiled, state, training_set, step, stop, bar)
            lines += [{"step": step + i, "loss": float(v)} for i, v in enumerate(values)]
            step = stop
            _check_finite(lines[-len(values) :], run)
            if step % eval_every == 0 or step == config.steps:
                lines += [_held_out_line(compiled, state, held_out, step, config)]
                _check_finite(lines[-1:], run)
            if run is not None:
                run.metrics(lines[written:])
                written = len(lines)
                if step % checkpoint_every == 0 or step == config.steps:
                    run.save(step, state)
        rate = clock.images_per_s()
        if rate is not None:  # the bar's own rate, of a short training, is that of its first call
            last = next(line["loss"] for line in reversed(lines) if "loss" in line)
            bar.set_postfix_str(f"loss {last:.3g}, {rate:,.0f} images/s", refresh=False)
    finally:
        bar.close()
        if run is not None:
            run.close()

    # Not bound to a device: samples may lie on any.
    variables = jax.tree.map(jnp.asarray, jax.device_get(parallel.unstack(state.ema)))
    denoiser = NetworkDenoiser.trained(
        network, variables, data.image_shape, data_std, preconditioning, config.sigmas
    )
    return TrainResult(denoiser, as_arrays(lines), clock.seconds(), clock.images_per_s())


class _Clock:
    """Runs steps and keeps the time: that of compilation apart from that of the steps."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._first = None  # seconds of the first call: it compiles, and makes one step
        self._later = 0.0
        self._later_steps = 0
        self._counts: dict[int, jax.Array] = {}  # placed once, not every call

    def run(
        self, compiled: Programs, state: Any, data: tuple, step: int, stop: int, bar: tqdm
    ) -> tuple[Any, np.ndarray]:
        """Steps `step` to `stop`; returns the state and the losses [stop - step]."""
        done: list[tuple[jax.Array, int]] = []
        started, shown = time.perf_counter(), 0
        while step < stop:
            count = 1 if self._first is None else min(compiled.most, stop - step)
            state, losses = compiled.call(state, (data, self._placed(count)))
            done.append((losses, count))
            step += count
            if self._first is None:
                losses.block_until_ready()
                self._first = time.perf_counter() - started
                started = time.perf_counter()
            else:
                self._later_steps += count
            # The host stays two calls ahead of the device, no more: the bar tells the truth.
            if len(done) - shown > 2:
                self._show(*done[shown], bar)
                shown += 1
        for entry in done[shown:]:
            self._show(*entry, bar)
        self._later += time.perf_counter() - started
        host = [np.asarray(losses.addressable_data(0))[0, :count] for losses, count in done]
        return state, np.concatenate(host)

    def _placed(self, count: int) -> jax.Array:
        if count not in self._counts:
            self._counts[count] = parallel.replicate(np.int32(count))
        return self._counts[count]

    def _show(self, losses: jax.Array, count: int, bar: tqdm) -> None:
        losses.block_until_ready()
        if bar.update(count):
            last = float(np.asarray(losses.addressable_data(0))[0, count - 1])
            rate = (bar.format_dict["rate"] or 0) * self._batch_size
            bar.set_postfix_str(f"loss {last:.3g}, {rate:,.0f} images/s", refresh=False)

    def seconds(self) -> dict[str, float]:
        step = self._later / self._later_steps if self._later_steps else 0.0
        first = self._first or 0.0
        compile_seconds = max(0.0, first - step)
        return {"compile": compile_seconds, "train": self._later + first - compile_seconds}

    def images_per_s(self) -> float | None:
        if not self._later_steps:
            return None
        return self._later_steps * self._batch_size / self._later


class _Run:
    """A run directory being trained into; in several processes the first one writes the metrics."""

    def __init__(self, path: Any, config: dict):
        self._directory = RunDirectory(path)
        parallel.on_writer(lambda: self._directory.claim(config))
        self._checkpoints = Checkpoints(self._directory.checkpoints)

    def resume(self, state: TrainState) -> tuple[TrainState, list[dict]]:
        """The state to go on from, and the metrics lines up to there."""
        found = self._checkpoints.restore(state)
        step, state = (0, state) if found is None else found
        parallel.on_writer(lambda: self._directory.cut_back(step))
        return state, self._directory.lines()

    def metrics(self, lines: list[dict]) -> None:
        if parallel.is_writer():
            self._directory.append(lines)

    def save(self, step: int, state: Any) -> None:
        host_state = jax.device_get(parallel.unstack(state))
        finite = jax.tree.map(lambda leaf: bool(np.all(np.isfinite(leaf))), host_state)
        if not jax.tree.all(finite):
            raise FloatingPointError(f"the weights are not finite after step {step - 1}.")
        self._checkpoints.save(step, host_state)

    def last_step(self) -> int | None:
        """Where the newest checkpoint stands."""
        steps = self._checkpoints.steps()
        return steps[-1] if steps else None

    def close(self) -> None:
        self._checkpoints.close()


def check_arguments(network: Any, data: Any, config: Any, key: Any) -> None:
    """Refuses what `train` cannot train with; its TypeErrors and ValueErrors."""
    if not isinstance(data, ImageData):
        raise TypeError(f"data must be an ImageData (see jdiff.data); got {type(data).__name__}.")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig; got {type(config).__name__}.")
    _check.key("key", key)
    check_network(network, data, config.batch_size)


def check_network(network: Any, data: ImageData, batch_size: int) -> None:
    """Refuses a network that cannot be trained on these images in batches of this size.

    Nothing is computed: the network is traced.

    Raises:
      TypeError: on no linen module, one with a field that is not hashable, or one that is not
        called as networks are.
      ValueError: on F of another shape than x, labels that are missing or too many, or a batch that
        batch statistics cannot be taken of.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be a flax.linen module; got {network!r}.")
    _check_fields(network)
    wanted = getattr(network, "num_classes", None)
    if wanted is not None and data.labels is None:
        raise ValueError(
            f"data has no labels, but the network has num_classes={wanted}: give it labels or "
            "build the network without num_classes."
        )
    if wanted is not None and data.num_classes is not None and data.num_classes > wanted:
        raise ValueError(
            f"data has {data.num_classes} classes, but the network has num_classes={wanted}."
        )
    if not _has_statistics(network, tuple(data.image_shape)):
        return
    devices = parallel.num_devices()
    if batch_size % devices:
        raise ValueError(
            f"batch_size must divide over the {devices} devices for a network with batch "
            f"statistics, or padding would enter them; got {batch_size}."
        )
    if batch_size < 2 * devices:
        raise ValueError(
            "batch_size must be at least 2 a device for a network with batch statistics, or every "
            f"feature of one image is divided by itself; got {batch_size} on {devices} device(s)."
        )


def _check_fields(network: nn.Module) -> None:
    """Refuses options that a compiled program cannot be kept by."""
    for field in dataclasses.fields(network):
        value = getattr(network, field.name, None)
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"network's field {field.name} must be hashable, since it is part of the compiled "
                f"program: a tuple for a list; got {type(value).__name__} {value!r}."
            ) from None


@functools.lru_cache(maxsize=64)
def _has_statistics(network: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a network has variables beside its parameters; traced once, and its call with it."""
    called = f"{type(network).__name__} must be called as (x, c_noise, labels=None, train=False)"
    x, c_noise = jnp.zeros((2, *image_shape), jnp.float32), jnp.zeros((2,), jnp.float32)
    if not callable(network):
        raise TypeError(f"network {called}; it has no __call__.")
    try:
        inspect.signature(network.__call__).bind(x, c_noise, labels=None, train=False)
    except TypeError as error:
        raise TypeError(f"network {called}; {error}.") from None
    variables = jax.eval_shape(network.init, jax.random.key(0), x, c_noise)
    conditional = getattr(network, "num_classes", None) is not None
    labels = jnp.zeros(2, jnp.int32) if conditional else None
    f = jax.eval_shape(lambda v: network.apply(v, x, c_noise, labels=labels), variables)
    if getattr(f, "shape", None) != x.shape:
        got = getattr(f, "shape", type(f).__name__)
        raise ValueError(f"network {called} and return F like x; got {got} for x {x.shape}.")
    return bool(set(variables) - {"params", "intermediates"})


def _check_finite(lines: list[dict], run: _Run | None) -> None:
    value = lambda line: line.get("loss", line.get("held_out_loss"))
    bad = next((line for line in lines if not np.isfinite(value(line))), None)
    if bad is None:
        return
    which = "training loss" if "loss" in bad else "held-out loss"
    last = None if run is None else run.last_step()
    kept = "" if last is None else f" The checkpoint after {last} steps is kept."
    raise FloatingPointError(
        f"the {which} is not finite at step {bad['step']}; a lower learning_rate or a longer "
        f"warmup may help.{kept}"
    )


def _held_out_line(
    compiled: Programs, state: Any, data: tuple, step: int, config: TrainConfig
) -> dict:
    """The held-out loss after `step` steps, a mean over the same draws every time."""
    totals = np.zeros(2)
    for batch in range(-(-config.eval_examples // config.batch_size)):
        sums = compiled.evaluate(state.ema, (data, parallel.replicate(np.int32(batch))))
        totals += np.asarray(sums.addressable_data(0))[0]
    return {"step": step, "held_out_loss": float(totals[0] / totals[1])}


def describe_run(
    network: nn.Module,
    data: ImageData,
    config: TrainConfig,
    preconditioning: str,
    data_std: float,
    key: jax.Array,
) -> dict:
    """What config.json says of a run."""
    return {
        "kind": "network",
        "architecture": describe_module(network),
        "preconditioning": preconditioning,
        "image_shape": data.image_shape,
        "data": {
            "name": data.name,
            "num_train": data.num_train,
            "fingerprint": data.fingerprint(),
            "std": data_std,
        },
        "train": dataclasses.asdict(config),
        "key": describe_key(key),
    }


def deviation(data: ImageData) -> float:
    """The standard deviation over all values of all training images, model units."""
    mean = square = 0.0
    p = np.full(data.num_train, 1 / data.num_train) if data.weights is None else data.weights
    for i in range(0, data.num_train, 8192):
        x = _pixels.to_model(data.images[i : i + 8192]).reshape(len(p[i : i + 8192]), -1)
        mean += p[i : i + 8192] @ x.mean(1, dtype=np.float64)
        square += p[i : i + 8192] @ np.square(x, dtype=np.float64).mean(1)
    variance = square - mean**2
    if variance <= 1e-12 * square:  # zero, to rounding
        raise ValueError(
            "data has no variance: every value of every training image that has weight is the same."
        )
    return float(np.sqrt(variance))
