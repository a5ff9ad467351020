"""Every measure of one set of samples, and of the denoiser that made them: one table.

What several measures need (neighbours, features, distances) is computed once. A measure that cannot
be taken of these data, such as a spectrum of points, is left out with its reason, unless it was
asked for by name.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jdiff import _check, metrics
from jdiff.data import ImageData
from jdiff.denoisers import (
    Denoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    OptimalDenoiser,
)
from jdiff.metrics import Measure
from jdiff.metrics.agreement import varies

Found = dict[str, Measure]
PIXELS = "pixels"
_NEAREST = 50  # neighbours of the calibrated distance
# Levels of measures of a denoiser that is defined at any: 1 to 0.01 of the range [0, 1].
_SIGMAS = np.geomspace(2.0, 0.02, 9)
_WINDOW = 5  # of the local linear denoiser that explains


class Subject:
    """Samples, the data they are held against, and what is computed of them once.

    Attributes:
      samples: [n, H, W, C], uint8 or unclipped model units, finite.
      data: training and held-out images.
      denoiser: what made the samples, or None.
      spaces: feature spaces beside pixels: name -> encoder (images -> float32 [n, d]).
      seed: of bootstraps, subsets and noise.
      redraw: samples of another denoiser from the noise that `samples` were drawn from, or None.
      references: the closed forms that denoiser and samples are explained by; None fits them.
      most_levels: how many noise levels a denoiser is measured at, at most.
      num_images: images of each set that measures of a denoiser take, by measure; left out, their
        own numbers. More than there are is all that there are.
    """

    def __init__(
        self,
        samples: np.ndarray,
        data: ImageData,
        denoiser: Denoiser | None = None,
        spaces: Mapping[str, Callable[[Any], np.ndarray]] | None = None,
        seed: int = 0,
        redraw: Callable[[Denoiser], np.ndarray] | None = None,
        references: Mapping[str, Denoiser] | None = None,
        most_levels: int = 9,
        num_images: Mapping[str, int] | None = None,
    ):
        """Nothing is computed before it is asked for."""
        if references is not None:
            self.references = dict(references)
        self._most_levels, self._num_images = most_levels, dict(num_images or {})
        self.samples, self.data, self.denoiser = samples, data, denoiser
        self.spaces, self.seed, self.redraw = dict(spaces or {}), seed, redraw
        self._arrays: dict[str, tuple] = {}
        self._balls: dict[str, Found] = {}

    def arrays(self, space: str = PIXELS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples, training and held-out images, or their features in a space."""
        if space not in self._arrays:
            images = (self.samples, self.data.images, self.data.held_out)
            if space != PIXELS:
                images = tuple(np.asarray(self.spaces[space](x)) for x in images)
            self._arrays[space] = images
        return self._arrays[space]

    @functools.cached_property
    def references(self) -> dict[str, Denoiser]:
        """The closed forms that a denoiser and its samples are explained by."""
        return references(self.data)

    @functools.cached_property
    def key(self) -> jax.Array:
        """Of the noise that a denoiser is measured with."""
        return jax.random.key(self.seed, impl="threefry2x32")

    @functools.cached_property
    def distinct(self) -> np.ndarray:
        """Training images that repeat no earlier one."""
        return metrics.distinct(self.data.images)

    @functools.cached_property
    def neighbors(self) -> tuple[metrics.Neighbors, metrics.Neighbors]:
        """The nearest distinct training images of samples and of held-out images."""
        generated, train, held_out = self.arrays()
        k = min(_NEAREST, len(self.distinct))
        if k < 2:
            raise ValueError("train must hold at least two distinct images, or d2 does not exist.")
        nearest = lambda x: metrics.nearest(x, train, k, among=self.distinct)
        return nearest(generated), nearest(held_out)

    @functools.cached_property
    def two(self) -> tuple[metrics.NearestTwo, metrics.NearestTwo]:
        """The two nearest of each."""
        sizes = self.data.num_train, len(self.distinct)
        generated, held_out = (metrics.NearestTwo.of(x, *sizes) for x in self.neighbors)
        return generated, held_out

    def memorization(self, measure: Callable[..., Measure], **constants: Any) -> Measure:
        """A measure of the two nearest training images."""
        own, held_out = self.two
        return measure(*self.arrays(), neighbors=own, held_out_neighbors=held_out, **constants)

    def balls(self, space: str) -> Found:
        """precision, recall, density and coverage in a space."""
        if space not in self._balls:
            self._balls[space] = metrics.prdc(*self.arrays(space))
        return self._balls[space]

    @functools.cached_property
    def levels(self) -> np.ndarray:
        """Levels that the denoiser is measured at: of its own, or of the common ones."""
        own = getattr(self.denoiser, "sigmas", None)
        levels = _SIGMAS if own is None else np.asarray(own, np.float64)
        places = np.linspace(0, len(levels) - 1, min(self._most_levels, len(levels)))
        return levels[np.unique(places.round()).astype(int)]

    def num_images(self, name: str) -> int | None:
        """How many images of each set a measure of the denoiser takes; None is its own number."""
        asked = self._num_images.get(name)
        return asked and min(asked, self.data.num_train, len(self.data.held_out))


def references(data: ImageData) -> dict[str, Denoiser]:
    """The closed forms that explain, fitted to the training images, by the names they go by."""
    images, shape = data.images, data.image_shape
    window = min(_WINDOW, 2 * min(shape[:2]) - 1)
    return {
        "optimal": OptimalDenoiser.fit(images),
        "linear": LinearDenoiser.fit(images),
        f"local_linear {window}": LocalLinearDenoiser.fit(images, patch_size=window),
        "equivariant_linear": EquivariantLinearDenoiser.fit(images),
    }


@dataclasses.dataclass(frozen=True)
class _Entry:
    """How a measure is taken.

    Attributes:
      take: (subject, space) -> measures by the key they are stored under.
      spaced: whether it is taken in every feature space, or in pixels alone.
      of_denoiser: whether it needs the denoiser.
    """

    take: Callable[[Subject, str], Found]
    spaced: bool = False
    of_denoiser: bool = False


def _of_images(measure: Callable[..., Measure]) -> _Entry:
    return _Entry(lambda s, space: {measure.__name__: measure(*s.arrays())})


def _memorized(subject: Subject, space: str) -> Found:
    take = functools.partial(subject.memorization, metrics.memorized_fraction)
    return {"memorized_fraction": take(), "memorized_fraction_half": take(c=0.5)}


def _calibrated(subject: Subject, space: str) -> Found:
    own, held_out = subject.neighbors
    found = metrics.calibrated_distance(
        *subject.arrays(), neighbors=own, held_out_neighbors=held_out
    )
    return {"calibrated_distance": found}


def _authenticity(subject: Subject, space: str) -> Found:
    return {"authenticity": subject.memorization(metrics.authenticity)}


def _nearest_rms(subject: Subject, space: str) -> Found:
    return {"nearest_rms": subject.memorization(metrics.nearest_rms)}


def _copy_rate(subject: Subject, space: str) -> Found:
    if space == PIXELS and subject.spaces:
        return {}  # most pairs of images have a cosine near 1 on pixels
    generated, train, held_out = subject.arrays(space)
    nearest = [metrics.nearest_cosine(x, train, 1) for x in (generated, held_out)]
    known: dict[str, Any] = {"neighbors": nearest[0], "held_out_neighbors": nearest[1]}
    take = functools.partial(metrics.copy_rate, generated, train, held_out, **known)
    return {"copy_rate": take(), "copy_rate_0.6": take(tau=0.6)}


def _tiles(subject: Subject, space: str) -> Found:
    # H // 4 by definition; of small images at least 4: two tiles of 2 x 2 correlate by chance.
    height, width = subject.data.image_shape[:2]
    side = min(max(4, height // 4), height, width)
    return {"patch_sources": metrics.patch_sources(*subject.arrays(), side=side)}


def _on_features(measure: Callable[..., Measure]) -> _Entry:
    take = lambda s, space: {measure.__name__: measure(*s.arrays(space))}
    return _Entry(take, spaced=True)


def _balls(name: str) -> _Entry:
    def take(subject: Subject, space: str) -> Found:
        try:
            return {name: subject.balls(space)[name]}
        except ValueError:  # one of the four wants more samples than this one may
            return {name: getattr(metrics, name)(*subject.arrays(space))}

    return _Entry(take, spaced=True)


def _locality(subject: Subject, space: str) -> Found:
    profile = metrics.locality_profile(
        *_denoising(subject),
        subject.levels,
        key=subject.key,
        num_images=subject.num_images("locality_profile"),
    )
    return {f"locality_profile {m.constants['q']:.0%}": m for m in profile}


def _equivariance(subject: Subject, space: str) -> Found:
    # How often a network halves its grid; once, of what does not say.
    halvings = getattr(getattr(subject.denoiser, "module", None), "halvings", 1)
    least = min(subject.data.image_shape[:2])
    levels = max(1, min(halvings, (least - 1).bit_length() - 1))
    found = metrics.equivariance_error(
        *_denoising(subject),
        subject.levels,
        key=subject.key,
        levels=levels,
        num_images=subject.num_images("equivariance_error"),
    )
    # Shifts by 2^halvings pixels, which a network may commute with, need an image twice as large.
    kept = [m for m in found if m.constants["step"] == 1 or levels >= halvings]
    return {f"equivariance_error step {m.constants['step']}": m for m in kept}


def _explained(subject: Subject, space: str) -> Found:
    denoiser, train, held_out = _denoising(subject)
    found = metrics.explained_by(
        denoiser,
        subject.references,
        train,
        held_out,
        subject.levels,
        key=subject.key,
        num_images=subject.num_images("explained_by"),
    )
    return {
        f"explained_by {reference} {name}": measure
        for reference, measures in found.items()
        for name, measure in measures.items()
    }


def _agreements(subject: Subject, space: str) -> Found:
    """Samples against those of each closed form from the same noise."""
    if subject.redraw is None:
        raise ValueError("it needs samples drawn from a noise that is known")
    made: Found = {}
    for reference, denoiser in subject.references.items():
        other = np.asarray(subject.redraw(denoiser))
        vary = varies(subject.samples) & varies(other)
        if np.sum(vary) < 2:
            continue
        about = {"samples_of": reference, "constant_pairs_left_out": int(np.sum(~vary))}
        for name, found in metrics.agreements(subject.samples[vary], other[vary]).items():
            key = f"explained_by samples of {reference} {name}"
            made[key] = dataclasses.replace(found, constants={**about, **found.constants})
    if not made:
        raise ValueError("fewer than two pairs of samples vary, so that they have a correlation")
    return made


def _gap(subject: Subject, space: str) -> Found:
    return {
        "psnr_gap": metrics.psnr_gap(
            *_denoising(subject),
            subject.levels,
            key=subject.key,
            num_images=subject.num_images("psnr_gap"),
        )
    }


def _denoising(subject: Subject) -> tuple[Any, np.ndarray, np.ndarray]:
    return subject.denoiser, subject.data.images, subject.data.held_out


# In the order of the report. effective_memorization needs a sweep of training-set sizes and
# two_split_agreement two trainings: neither is a measure of one set of samples.
MEASURES: dict[str, _Entry] = {
    "memorized_fraction": _Entry(_memorized),
    "nearest_rms": _Entry(_nearest_rms),
    "calibrated_distance": _Entry(_calibrated),
    "copy_rate": _Entry(_copy_rate, spaced=True),
    "authenticity": _Entry(_authenticity),
    "copying_z": _of_images(metrics.copying_z),
    "psnr_gap": _Entry(_gap, of_denoiser=True),
    "patch_sources": _Entry(_tiles),
    "mosaic_consistency": _of_images(metrics.mosaic_consistency),
    "vendi": _on_features(metrics.vendi),
    "locality_profile": _Entry(_locality, of_denoiser=True),
    "equivariance_error": _Entry(_equivariance, of_denoiser=True),
    "explained_by": _Entry(_explained, of_denoiser=True),
    "agreements": _Entry(_agreements, of_denoiser=True),
    "frechet_distance": _on_features(metrics.frechet_distance),
    "kernel_distance": _on_features(metrics.kernel_distance),
    "precision": _balls("precision"),
    "recall": _balls("recall"),
    "density": _balls("density"),
    "coverage": _balls("coverage"),
    "spectrum_distance": _of_images(metrics.spectrum_distance),
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
      measures: by key: the measure's name, with its feature space where that is not pixels.
      skipped: why a measure was left out, by name.
      seconds: what each took, by name.
    """

    measures: Found
    skipped: dict[str, str]
    seconds: dict[str, float]


def measure(
    subject: Subject,
    names: Sequence[str] | None = None,
    *,
    say: Callable[[str], None] = print,
    skip: bool | None = None,
) -> Measured:
    """Takes measures of a subject.

    Args:
      subject: samples and data.
      names: keys of `MEASURES`; None takes all that can be taken.
      say: told what is being done.
      skip: whether one that cannot be taken is left out with its reason; None leaves out those
        that were not asked for by name.

    Raises:
      ValueError: on an unknown or repeated name, or one that cannot be taken and is not left out.
    """
    check_names(names, subject.denoiser is not None)
    wanted = list(MEASURES) if names is None else list(names)
    skip = names is None if skip is None else skip
    found: Found = {}
    skipped: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in wanted:
        entry = MEASURES[name]
        if entry.of_denoiser and subject.denoiser is None:
            skipped[name] = _NO_DENOISER
            continue
        say(name)
        started = time.perf_counter()
        for space in (PIXELS, *subject.spaces) if entry.spaced else (PIXELS,):
            try:
                taken = entry.take(subject, space)
            except ValueError as error:
                if not skip:
                    raise ValueError(f"measure {name} cannot be taken: {error}") from error
                skipped[_key(name, space)] = str(error)
                continue
            for key, value in taken.items():
                value = dataclasses.replace(value, features=space)
                found[_key(key, space)] = value
        seconds[name] = time.perf_counter() - started
    return Measured(found, skipped, seconds)


def check_names(names: Sequence[str] | None, has_denoiser: bool) -> None:
    """Refuses names before anything is computed.

    Raises:
      ValueError: on an unknown or repeated name, or one of a denoiser where there is none.
    """
    for name in names or ():
        _check.choice("measure", name, MEASURES)
        if list(names or ()).count(name) > 1:
            raise ValueError(f"measures must not repeat; got {name} more than once.")
        if MEASURES[name].of_denoiser and not has_denoiser:
            raise ValueError(f"measure {name} cannot be taken: {_NO_DENOISER}.")


_NO_DENOISER = "it is a measure of a denoiser, and only samples were given"


def _key(name: str, space: str) -> str:
    return name if space == PIXELS else f"{name} ({space})"
