"""The whole trajectory as one compiled scan, batches and devices around it.

    y_0 = sigma_0 z,   y_{t+1} = solver(D, y_t, sigma_t, sigma_{t+1}),   sigma_T = 0

Sample i depends on (key, i) only: key_i = fold_in(fold_in(key, SAMPLE), i), its starting noise
comes from fold_in(key_i, 0) and its step t from fold_in(key_i, t + 1), whatever the batch, the
devices or the number of samples.

Samples are divided over the devices. Where the denoiser's training set is instead
(`jdiff.parallel.shard`), every device follows all samples of a batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _flops, noise, parallel
from jdiff.denoisers.protocol import (
    Denoiser,
    check_denoiser,
    check_labels,
    check_levels,
    check_rows,
)
from jdiff.sampling.solvers import SOLVERS, Solver

# Training folds another constant first, so that one user key serves both with different noise.
SAMPLE = 1
_RECORDS = ("y", "x_hat")


def sample(
    denoiser: Denoiser,
    key: jax.Array,
    num_samples: int,
    *,
    sigmas: Any = None,
    solver: str | Solver = "ddim",
    labels: Any = None,
    batch_size: int | None = None,
) -> jax.Array:
    """Draws samples from fresh noise.

    Args:
      denoiser: any denoiser; one compilation serves all of one class, shape and batch.
      key: a typed threefry key, `jax.random.key(seed)`.
      num_samples: how many.
      sigmas: grid [T + 1] decreasing to 0; None takes the denoiser's own levels, else karras(18).
      solver: a name (ddim, heun, ddpm, dpmpp_2m) or a Solver.
      labels: int [num_samples] or one label for all, for denoisers with classes.
      batch_size: samples at a time over all devices, rounded up to a multiple of their number;
        default min(num_samples rounded up to a power of two, 256 a device).

    Returns:
      float32 [num_samples, H, W, C] in model units, not clipped.

    Raises:
      TypeError: on something that is no denoiser, or a key of another kind.
      ValueError: on a bad grid or number, an unknown solver, levels that the denoiser lacks, or
        labels that it cannot take.

    Example:
      >>> import jdiff
      >>> points = np.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
      >>> optimal = jdiff.OptimalDenoiser.fit(points)
      >>> samples = sample(optimal, jax.random.key(0), 4)
      >>> np.abs(np.asarray(samples).ravel()).round(3).tolist()  # copies of the two points
      [1.0, 1.0, 1.0, 1.0]
    """
    check_denoiser(denoiser)
    _check.key("key", key)
    num_samples = _check.integer("num_samples", num_samples)
    grid = _grid(denoiser, sigmas)
    labels = check_labels(denoiser, labels, num_samples)
    devices = parallel.num_devices()
    if batch_size is None:
        batch_size = min(1 << (num_samples - 1).bit_length(), 256 * devices)
    per_device = parallel.rows_per_device(_check.integer("batch_size", batch_size))

    run = _runner(denoiser, grid, key, _solver(solver), labels, record=None, start=True)
    batches = []
    for first in range(0, num_samples, per_device * devices):
        indices = np.arange(first, first + per_device * devices)
        part = None if labels is None else labels[np.minimum(indices, num_samples - 1)]
        kept = min(num_samples - first, len(indices))
        batches.append(run((indices, None, part), kept))
    return batches[0] if len(batches) == 1 else jnp.concatenate(batches)


def solve(
    denoiser: Denoiser,
    y: Any,
    sigmas: Any,
    *,
    solver: str | Solver = "ddim",
    key: jax.Array | None = None,
    labels: Any = None,
    record: Sequence[str] | None = None,
) -> Any:
    """Runs the sampler from given noise, so that two denoisers can start from the same.

    Args:
      denoiser: any denoiser.
      y: starting points [B, H, W, C], float, about sigmas[0] in size; row i is sample i.
      sigmas: grid [T + 1] decreasing to 0.
      solver: a name or a Solver.
      key: needed by stochastic solvers (ddpm with eta > 0), a typed threefry key.
      labels: int [B] or one label for all.
      record: what to keep of the way: any of "y" (where each step started) and "x_hat" (what the
        denoiser said there).

    Returns:
      y [B, H, W, C]; with `record` also a dict of arrays [T, B, H, W, C].

    Raises:
      TypeError, ValueError: as `sample`; also on starting points that are not finite floats of the
        denoiser's shape.
    """
    check_denoiser(denoiser)
    grid = _grid(denoiser, sigmas)
    y = jnp.asarray(y)
    check_rows("y", y, denoiser.image_shape)
    if len(y) == 0:
        raise ValueError(f"y must hold at least one starting point; got shape {y.shape}.")
    if not bool(jnp.all(jnp.isfinite(y))):
        raise ValueError("y holds NaN or infinite values; all must be finite.")
    if record is not None:
        record = tuple(_check.choice("record", name, _RECORDS) for name in record)
    chosen = _solver(solver)
    if key is None:
        if chosen.stochastic:
            raise ValueError("key is None, but this solver draws noise: pass jax.random.key(seed).")
        key = jax.random.key(0, impl="threefry2x32")
    _check.key("key", key)
    labels = check_labels(denoiser, labels, len(y))

    run = _runner(denoiser, grid, key, chosen, labels, record=record, start=False)
    return run((np.arange(len(y)), y.astype(jnp.float32), labels), len(y))


def sample_key(key: jax.Array, index: Any) -> jax.Array:
    """The key of sample `index`."""
    return jax.random.fold_in(jax.random.fold_in(key, SAMPLE), index)


def _runner(
    denoiser: Denoiser,
    grid: np.ndarray,
    key: jax.Array,
    solver: Solver,
    labels: Any,
    *,
    record: tuple[str, ...] | None,
    start: bool,
) -> Callable:
    """A function (rows, how many to keep) -> their results; what all rows share is placed once."""
    program = _program(denoiser, solver, labels, record=record, start=start)
    shared = (denoiser, jnp.asarray(grid), key)
    mesh = parallel.mesh_of(denoiser)
    if mesh is not None:
        shared = (denoiser, *parallel.everywhere(shared[1:], mesh))

        def run_whole(rows: tuple, kept: int) -> Any:
            result = parallel.bring_home(program(shared, parallel.everywhere(rows, mesh)))
            if record is None:
                return result[:kept]
            return result[0][:kept], {name: way[:, :kept] for name, way in result[1].items()}

        return run_whole
    shared = parallel.replicate(shared)

    def run_split(rows: tuple, kept: int) -> Any:
        result = program(shared, parallel.split(rows))
        if record is None:
            return parallel.collect(result, kept)
        return parallel.collect(result[0], kept), parallel.collect(result[1], kept, axis=1)

    return run_split


def _program(
    denoiser: Denoiser,
    solver: Solver,
    labels: Any,
    *,
    record: tuple[str, ...] | None,
    start: bool,
) -> Callable:
    """The compiled trajectory; convolutions in the denoiser decide on compiler options."""
    label = None if labels is None else jax.ShapeDtypeStruct((1,), jnp.int32)
    convolutions = _flops.denoiser_has_convolution(denoiser, denoiser.image_shape, label)
    return _compiled(solver, record, start, convolutions, parallel.mesh_of(denoiser))


@functools.lru_cache(maxsize=64)
def _compiled(
    solver: Solver,
    record: tuple[str, ...] | None,
    start: bool,
    convolutions: bool,
    mesh: Any,
) -> Callable:
    def trajectory(shared: tuple, rows: tuple) -> Any:
        denoiser, sigmas, key = shared
        indices, y, labels = rows
        keys = jax.vmap(sample_key, (None, 0))(key, indices)
        if start:
            shape = denoiser.image_shape
            normal = lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape, jnp.float32)
            y = sigmas[0] * jax.vmap(normal)(keys)

        inside = None
        if solver.affine and record is None and labels is None:
            # Rotating once is exact for such a solver, and saves two GEMMs a step.
            inside = getattr(denoiser, "coordinates", lambda: None)()
            y = y if inside is None else inside.project(y)

        def step(carry: Any, t: jax.Array) -> Any:
            y, state = carry
            x_hats = []

            def denoise(y: jax.Array, sigma: jax.Array) -> jax.Array:
                x_hats.append(inside.denoise(y, sigma) if inside else denoiser(y, sigma, labels))
                return x_hats[-1]

            step_keys = jax.vmap(lambda key: jax.random.fold_in(key, t + 1))(keys)
            y_next, state = solver.step(denoise, y, state, sigmas[t], sigmas[t + 1], step_keys)
            kept = {"y": y, "x_hat": x_hats[0]}
            return (y_next, state), {name: kept[name] for name in record or ()}

        steps = jnp.arange(len(sigmas) - 1)
        (y, _), recorded = jax.lax.scan(step, (y, solver.init(y)), steps)
        y = y if inside is None else inside.expand(y)
        return y if record is None else (y, recorded)

    if mesh is not None:
        return parallel.run_whole(trajectory, mesh, convolutions=convolutions)
    return parallel.map_devices(trajectory, in_axes=(None, 0), convolutions=convolutions)


def _solver(solver: str | Solver) -> Solver:
    if isinstance(solver, Solver):
        return solver
    return SOLVERS[_check.choice("solver", solver, SOLVERS)]


def _grid(denoiser: Denoiser, sigmas: Any) -> np.ndarray:
    if sigmas is None:
        own = denoiser.sigmas
        return noise.karras(18) if own is None else np.append(np.asarray(own), np.float32(0))
    grid = _check.sigmas("sigmas", sigmas)
    check_levels(denoiser, grid)
    return grid
