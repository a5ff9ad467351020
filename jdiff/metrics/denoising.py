"""Measures of a denoiser D, level by level: psnr_gap and equivariance_error.

    psnr_gap(sigma) = PSNR(train) - PSNR(held out),   PSNR = -10 log10 max(mean (D(y) - x)^2, 1e-10)
    equivariance_error(sigma) = |D(shift y) - shift D(y)| / |D(y)|,      shifts are circular

at y = x + sigma z. A denoiser is any callable (y, sigma) -> x_hat on [B, H, W, C], traceable by
jax and called without labels; sigma is in model units, errors are taken on [0, 1]. `in_batches`
evaluates anything that can be asked of a denoiser at noisy images; what it gives for image i
depends on (key, i, sigma) alone, and not on the other images, the other levels or the batch. The
images are divided over the devices of this process, each of which holds the denoiser; one that is
itself split over devices (`parallel.shard`) answers for all images on all of them.
Source of the gap: Kadkhodaie et al. 2024, "Generalization in diffusion models arises from
geometry-adaptive harmonic representations".
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _flops, _pixels, noise, parallel
from jdiff.metrics import inputs
from jdiff.metrics.intervals import RESAMPLES, bootstrap_mean
from jdiff.metrics.measure import Measure

MEASURE = 3  # folded into the user's key; training, sampling and fits fold other constants
TRAIN, HELD_OUT = range(2)  # folded next; measures that choose more fold other constants
PICK, NOISE = range(2)  # folded last: which images, and what each gets added
BATCH = 64  # images a call, on each device
LEAST_MSE = 1e-10  # on [0, 1]: PSNR ends at 100 dB


class Noisy(NamedTuple):
    """Which images of one set a denoiser is measured on, and the key of their noise."""

    images: np.ndarray  # [n, H, W, C], as they came
    indices: np.ndarray  # int [n], their places in the set
    key: jax.Array


class Given(NamedTuple):
    """The arguments of a measure of a denoiser, checked."""

    train: Noisy
    held_out: Noisy
    sigmas: np.ndarray  # float32 [T], decreasing
    key: jax.Array  # for further choices of the measure


def psnr_gap(
    denoiser: Callable,
    train: Any,
    held_out: Any,
    sigmas: Any = None,
    *,
    key: jax.Array,
    num_images: int | None = None,
    seed: int = 0,
) -> Measure:
    """How much better a denoiser removes noise from its training images than from others, in dB.

    PSNR_train(sigma) - PSNR_held_out(sigma), the mean over images of -10 log10 max(MSE, 1e-10) on
    [0, 1]. It is 0 where nothing was memorized.

    Args:
      denoiser: (y, sigma) -> x_hat.
      train: the images it was trained on, [N, H, W, C] uint8 or model units in [-1, 1].
      held_out: images that it was not trained on.
      sigmas: levels in model units, decreasing (a closing 0 is left off). None takes the
        denoiser's own, else nine from 2 to 0.02, which are 1 to 0.01 of the [0, 1] range.
      key: of the noise and of the choice of images, jax.random.key(seed).
      num_images: how many of each set, at least 2; None takes 256, or the smaller set.
      seed: of the bootstrap.

    Returns:
      Measure with values [T] and bootstrap intervals of the difference of two means; no control,
      as it is a contrast. `per_sample` holds the PSNRs [2, n, T] of training and held-out images,
      whose means stand in the constants.

    Raises:
      TypeError: on a denoiser that is not callable, a wrong dtype or a key of another kind.
      ValueError: on shapes that differ, levels that the denoiser was not fitted at, more images
        than there are, or a denoiser whose answer is not finite.

    References:
      Kadkhodaie et al. 2024, figure 1.
    """
    if sigmas is None and getattr(denoiser, "sigmas", None) is None:
        sigmas = np.geomspace(2.0, 0.02, 9)
    given = arguments(denoiser, train, held_out, sigmas, key, num_images, default=256)
    errors = [_squared_errors(denoiser, noisy, given.sigmas) for noisy in given[:2]]
    psnr = -10 * np.log10(np.maximum(np.asarray(errors, np.float64), LEAST_MSE))
    n = psnr.shape[1]
    seed = _check.integer("seed", seed, minimum=0)
    rng = np.random.default_rng(seed)
    # A resample as the number of times that each image is drawn; the two sets are independent.
    drawn = [rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for _ in psnr]
    gaps = drawn[0] @ psnr[0] - drawn[1] @ psnr[1]
    low, high = np.quantile(gaps, [0.025, 0.975], axis=0)
    trained, others = psnr.mean(axis=1)
    constants = {
        "sigmas": given.sigmas.tolist(),
        "psnr_train": trained.tolist(),
        "psnr_held_out": others.tolist(),
        "seed": seed,
    }
    gap = trained - others
    return Measure("psnr_gap", gap, (low, high), None, None, n, "pixels", constants, psnr)


def equivariance_error(
    denoiser: Callable,
    train: Any,
    held_out: Any,
    sigmas: Any,
    *,
    key: jax.Array,
    levels: int = 1,
    num_images: int | None = None,
    seed: int = 0,
) -> tuple[Measure, Measure]:
    """How far a denoiser is from treating all places alike.

    |D(shift y) - shift D(y)| / |D(y)|, Euclidean on [0, 1], a mean over circular shifts by `step`
    pixels down and to the right, and over images. A network that halves its grid `levels` times can
    be equivariant to steps of 2^levels alone, so both are reported, apart.

    Args:
      denoiser: (y, sigma) -> x_hat.
      train: the images it was trained on, [N, H, W, C] uint8 or model units in [-1, 1].
      held_out: images that it was not trained on, for the control.
      sigmas: levels in model units, decreasing (a closing 0 is left off), or None for the
        denoiser's own.
      key: of the noise and of the choice of images.
      levels: how often the denoiser halves its grid, at least 1, with 2^levels < H and W.
      num_images: how many of each set, at least 2; None takes 64, or the smaller set.
      seed: of the bootstrap.

    Returns:
      Two Measures with values [T], of one-pixel steps and of steps of 2^levels pixels
      (constants["step"]): at noisy training images, and as control at noisy held-out ones.
      `per_sample` is [n, T].

    Raises:
      TypeError: on a denoiser that is not callable, a wrong dtype or a key of another kind.
      ValueError: on shapes that differ, steps as long as the image, levels that the denoiser was
        not fitted at, more images than there are, or an x_hat that is not finite, or all black.
    """
    given = arguments(denoiser, train, held_out, sigmas, key, num_images, default=64)
    least = min(given.train.images.shape[1:3])
    if least < 3:
        raise ValueError(
            f"train must be images of at least 3 x 3 pixels; got {least} along a side."
        )
    levels = _check.integer("levels", levels, maximum=(least - 1).bit_length() - 1)
    steps = (1, 2**levels)
    ratios = [_shift_errors(denoiser, noisy, given.sigmas, steps) for noisy in given[:2]]
    one, strided = (
        mean_by_level(
            "equivariance_error",
            ratios[0][..., i],
            ratios[1][..., i],
            {"step": step, "sigmas": given.sigmas.tolist()},
            seed,
        )
        for i, step in enumerate(steps)
    )
    return one, strided


def _squared_errors(denoiser: Callable, noisy: Noisy, sigmas: np.ndarray) -> np.ndarray:
    """Mean squared errors on [0, 1], float64 [n, T]."""
    x, denoiser = _pixels.to_model(noisy.images), placed(denoiser)
    of_level = lambda level: np.square((answers(denoiser, noisy, level) - x) / 2).mean(
        axis=(1, 2, 3), dtype=np.float64
    )
    return np.stack([of_level(level) for level in sigmas], axis=1)


def _shift_errors(
    denoiser: Callable, noisy: Noisy, sigmas: np.ndarray, steps: tuple[int, ...]
) -> np.ndarray:
    """For each step the mean of |D(shift y) - shift D(y)| / |D(y)|, float64 [n, T, steps]."""
    denoiser = placed(denoiser)
    size = lambda x: np.sqrt(np.square(x, dtype=np.float64).sum(axis=(1, 2, 3)))

    def of_level(level: np.float32) -> np.ndarray:
        x_hat = _pixels.to_unit(answers(denoiser, noisy, level))
        length = size(x_hat)
        if np.any(length == 0):
            raise ValueError("denoiser must not return images that are all black: |D(y)| is 0.")

        def error(down: int, right: int) -> np.ndarray:
            shifted = _pixels.to_unit(answers(denoiser, noisy, level, (down, right)))
            return size(shifted - np.roll(x_hat, (down, right), axis=(1, 2))) / length

        return np.stack([(error(step, 0) + error(0, step)) / 2 for step in steps], axis=1)

    return np.stack([of_level(level) for level in sigmas], axis=1)


# What every measure of a denoiser shares.


def arguments(
    denoiser: Callable,
    train: Any,
    held_out: Any,
    sigmas: Any,
    key: jax.Array,
    num_images: int | None,
    *,
    default: int,
) -> Given:
    """The arguments checked, and as many images of either set chosen by the key.

    Raises:
      TypeError, ValueError: as the measures say.
    """
    if not callable(denoiser):
        raise TypeError(
            f"denoiser must be a callable (y, sigma) -> x_hat; got {type(denoiser).__name__}."
        )
    train, held_out = _check.images("train", train), _check.images("held_out", held_out)
    inputs.same_shape("train", train, held_out=held_out)
    shape = getattr(denoiser, "image_shape", None)
    if shape is not None and tuple(shape) != train.shape[1:]:
        raise ValueError(f"train must be images of the denoiser's {shape}; got {train.shape[1:]}.")
    grid = fitted_levels(denoiser, sigmas)
    inputs.at_least(2, train=train, held_out=held_out)
    fewest = min(len(train), len(held_out))
    if num_images is None:
        num_images = min(default, fewest)
    n = _check.integer("num_images", num_images, minimum=2, maximum=fewest)
    key = jax.random.fold_in(_check.key("key", key), MEASURE)

    def chosen(images: np.ndarray, which: int) -> Noisy:
        of_set = jax.random.fold_in(key, which)
        pick = jax.random.fold_in(of_set, PICK)
        indices = np.sort(np.asarray(jax.random.permutation(pick, len(images))[:n]))
        return Noisy(images[indices], indices, jax.random.fold_in(of_set, NOISE))

    return Given(chosen(train, TRAIN), chosen(held_out, HELD_OUT), grid, key)


def fitted_levels(denoiser: Callable, sigmas: Any) -> np.ndarray:
    """Levels, float32 [T] decreasing, that a denoiser is defined at; None means all its own.

    Raises:
      ValueError: if there are none, or one was not fitted (relative tolerance 1e-5).
    """
    own = getattr(denoiser, "sigmas", None)
    if sigmas is None and own is None:
        raise ValueError(
            "sigmas must be given: this denoiser is defined at any level and names none; got None."
        )
    grid = _check.levels("sigmas", own if sigmas is None else sigmas)
    if own is not None:
        _check.fitted("sigmas", grid, own, type(denoiser).__name__)
    return grid


def in_batches(
    ask: Callable,
    denoiser: Callable,
    noisy: Noisy,
    sigmas: np.ndarray,
    *extra: Any,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """What `ask` finds at y = x + sigma z, for n images at T levels, a batch of images at a time.

    One program serves all levels and batches; image i has the same z at every level.

    Args:
      ask: (denoise, x, y, *extra) -> [B, ...], with denoise(y) -> x_hat at the level and x, y
        [B, H, W, C] in model units. One function object is compiled once.
      denoiser: (y, sigma) -> x_hat; sigma is a scalar.
      noisy: the images and the key of their noise.
      sigmas: [T].
      *extra: arrays that `ask` takes.
      batch_size: images a call and device; the answer does not depend on it but for rounding.

    Yields:
      float32 [b, T, ...].

    Raises:
      ValueError: if something is not finite, naming the level.
    """
    images, indices, key = noisy
    tree = placed(denoiser)
    whole = parallel.mesh_of(tree)
    mesh = parallel.row_devices() if whole is None else None
    convolutions = _flops.denoiser_has_convolution(tree, images.shape[1:])
    program = _compiled(ask, convolutions, mesh, whole)
    batch = parallel.rows_a_call(len(images), batch_size, mesh)
    for start in range(0, len(images), batch):
        # The last batch ends with the last image again: one shape, one compilation.
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        arguments = (images[rows], indices[rows].astype(np.int32), key, sigmas, extra)
        if whole is None:
            found = program(tree, *arguments)
        else:
            found = parallel.bring_home(program(tree, *parallel.everywhere(arguments, whole)))
        found = np.moveaxis(np.asarray(found), 0, 1)[: len(images) - start]
        finite = np.isfinite(found).all(axis=tuple(a for a in range(found.ndim) if a != 1))
        if not np.all(finite):
            raise ValueError(
                "denoiser must give finite values at every level; it does not at sigma = "
                f"{sigmas[np.argmin(finite)]:.4g}."
            )
        yield found


def answers(
    denoiser: Callable, noisy: Noisy, level: Any, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """D(shift y) at y = x + sigma z, for n images at one level.

    Measures that need no more than x_hat take it from here: a network is then compiled once for all
    of them, which takes longer than what they ask.

    Args:
      denoiser: (y, sigma) -> x_hat; sigma is a scalar.
      noisy: the images and the key of their noise.
      level: sigma.
      shift: pixels down and to the right, circular.

    Returns:
      float32 [n, H, W, C], model units.

    Raises:
      ValueError: if something is not finite, naming the level.
    """
    sigmas, by = np.asarray(level, np.float32).reshape(1), np.asarray(shift, np.int32)
    batches = in_batches(_answer, denoiser, noisy, sigmas, by, batch_size=BATCH)
    return np.concatenate(list(batches))[:, 0]


def _answer(denoise: Callable, x: jax.Array, y: jax.Array, shift: jax.Array) -> jax.Array:
    return denoise(jnp.roll(y, shift, axis=(1, 2)))


def mean_by_level(
    name: str,
    values: np.ndarray,
    control: np.ndarray,
    constants: dict[str, Any],
    seed: int,
) -> Measure:
    """A Measure of means over images, from values [n, T] and the control's [m, T]."""

    def summary(values: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        low, high = np.transpose([bootstrap_mean(level, seed) for level in values.T])
        return values.mean(axis=0), (low, high)

    (value, interval), (against, against_interval) = summary(values), summary(control)
    constants = {**constants, "seed": seed}
    n = len(values)
    return Measure(name, value, interval, against, against_interval, n, "pixels", constants, values)


def as_argument(denoiser: Callable) -> Any:
    """A denoiser as jit takes it: a pytree as it is, a plain function as part of the program."""
    plain = jax.tree_util.all_leaves([denoiser])
    return jax.tree_util.Partial(denoiser) if plain else denoiser


def placed(denoiser: Callable) -> Any:
    """A denoiser as programs take it, once on every device; one that is split is left as it lies.

    For who asks it often: what is placed already is not copied again.
    """
    tree = as_argument(denoiser)
    if parallel.mesh_of(tree) is not None:
        return tree
    return parallel.everywhere(tree, parallel.row_devices())


@functools.lru_cache(maxsize=64)
def _compiled(ask: Callable, convolutions: bool, mesh: Any = None, whole: Any = None) -> Callable:
    """The program: of images split over `mesh`, of a denoiser split over `whole`, or of neither."""
    asked = functools.partial(_asked, ask)
    if whole is not None:
        return parallel.run_whole(asked, whole, convolutions=convolutions)
    in_specs = (parallel.WHOLE, *[parallel.SPLIT] * 2, *[parallel.WHOLE] * 3)
    asked = parallel.map_shards(asked, mesh, in_specs, parallel.SPLIT_SECOND)
    return jax.jit(asked, compiler_options=parallel.compiler_options(convolutions) or None)


def _asked(
    ask: Callable,
    denoiser: Any,
    images: jax.Array,
    indices: jax.Array,
    key: jax.Array,
    sigmas: jax.Array,
    extra: tuple,
) -> jax.Array:
    """[T, B, ...], one level a step of a scan."""
    x = _pixels.to_model(images)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    z = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], jnp.float32))(keys)

    def step(sigma: jax.Array) -> jax.Array:
        def denoise(y: jax.Array) -> jax.Array:
            x_hat = denoiser(y, sigma)
            chex.assert_equal_shape([x_hat, y])
            return x_hat

        return ask(denoise, x, noise.corrupt(x, sigma, z), *extra)

    return jax.lax.map(step, sigmas)
