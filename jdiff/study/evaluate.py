"""Are samples copies, creations or nonsense? Every measure there is, the verdict, the pictures.

Arrays in, a record and what its figures draw out; files are `evaluate_files`' matter.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jdiff import _check, _files, _pixels, metrics, parallel, report
from jdiff.data import ImageData
from jdiff.denoisers import Denoiser
from jdiff.metrics import inputs
from jdiff.metrics.distinct import repeats
from jdiff.metrics.patches import tile_starts
from jdiff.study import encoders, files
from jdiff.study.config import check_data
from jdiff.study.measures import Measured, Subject, check_names, measure

SCHEMA = 1
_VERDICT = ("memorized_fraction", "precision", "frechet_distance")
_SHOWN, _MOSAICS = 16, 8


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was found of one set of samples.

    Attributes:
      record: the contents of evaluation.json.
      arrays: what the figures draw, as `report.write_evaluation` takes them.
      measures: the measures, with their per-sample values.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    measures: dict[str, metrics.Measure]

    @property
    def verdict(self) -> metrics.Verdict | None:
        """The word and the numbers that decided; None if a measure that it reads is missing."""
        found = self.record["verdict"]
        return None if found is None else metrics.Verdict(**found)

    def __str__(self) -> str:
        return report.evaluation_table(self.record)


def evaluate(
    samples: Any,
    images: ImageData,
    denoiser: Denoiser | None = None,
    *,
    names: Sequence[str] | None = None,
    features: Sequence[str | Callable] | None = None,
    title: str = "samples",
    cache_dir: str | os.PathLike | None = None,
    seed: int = 0,
    redraw: Callable[[Denoiser], Any] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures and judges samples against a data set.

    Args:
      samples: [n, H, W, C], n >= 20, uint8 or float in model units (unclipped), finite.
      images: what the model was trained on, and held-out images of the same kind for the controls.
      denoiser: what made the samples, for the measures of a denoiser; None leaves them out.
      names: which measures, as `study.measures.MEASURES` names them; None takes all.
      features: feature spaces beside pixels, as `study.encoders.create` takes them; None takes a
        classifier where the data has labels (of held-out images too), else random convolutions; ()
        takes pixels alone.
      title: what the samples are called.
      cache_dir: where a trained encoder is kept; None trains it anew.
      seed: of bootstraps, subsets, encoders and the noise a denoiser is measured with.
      redraw: gives samples of another denoiser from the noise that these were drawn from, for the
        agreement with closed forms; None leaves that out.
      progress: whether what is being done is told on stderr.

    Returns:
      Evaluation.

    Raises:
      TypeError: on samples of another dtype.
      ValueError: on samples of another shape or range, fewer than 20, values that are not finite,
        data that a study refuses too, unknown measures or feature spaces, or measures asked for by
        name that cannot be taken.
    """
    say = parallel.teller(progress)
    samples = _checked(samples, images)
    check_names(names, denoiser is not None)
    seed = _check.integer("seed", seed, minimum=0)
    spaces = {}
    for spec in _features(images, features):
        say(f"features: {spec if isinstance(spec, str) else getattr(spec, '__name__', spec)}")
        made = encoders.create(spec, images, cache_dir=cache_dir, seed=seed, progress=progress)
        if made.name in spaces:
            raise ValueError(f"features must not repeat; got {made.name} more than once.")
        if made.name != "pixels":
            spaces[made.name] = made
    subject = Subject(samples, images, denoiser, spaces, seed, redraw)
    found = measure(subject, names, say=say)
    record = _record(subject, found, title)
    repeated = repeats(images.held_out, images.images)
    if repeated:
        record["notes"] = [
            f"{repeated} of {len(images.held_out)} held-out images are exact repeats of training "
            "images: the controls count them as copies."
        ]
    return Evaluation(record, _pictures(subject, found), found.measures)


def _checked(samples: Any, images: ImageData) -> np.ndarray:
    check_data(images, least_held_out=2)
    if len(metrics.distinct(images.images)) < 2:
        raise ValueError(
            f"data must have at least two different training images, or d2 does not exist; all "
            f"{images.num_train} of {images.name} are the same."
        )
    samples = inputs.samples("samples", samples)
    if samples.shape[1:] != images.images.shape[1:]:
        wanted, got = ("x".join(map(str, x.shape[1:])) for x in (images.images, samples))
        raise ValueError(f"samples must have the shape of the data's images, {wanted}; got {got}.")
    inputs.at_least(20, samples=samples)
    return samples


def _features(images: ImageData, features: Sequence[str | Callable] | None) -> list:
    if features is None:
        if min(images.image_shape[:2]) < 4:
            return []
        labels = images.labels
        labelled = labels is not None and images.held_out_labels is not None
        several = labelled and len(np.unique(np.asarray(labels))) > 1
        return ["classifier" if several else "random_conv"]
    if isinstance(features, str):
        raise ValueError(f"features must be a sequence of feature spaces; got {features!r}.")
    return list(features)


def _record(subject: Subject, found: Measured, title: str) -> dict[str, Any]:
    images = subject.data
    judged = all(name in found.measures for name in _VERDICT)
    return _files.plain(
        {
            "schema": SCHEMA,
            "kind": "evaluation",
            "title": title,
            "samples": {"num": len(subject.samples)},
            "data": {
                "name": images.name,
                "num_train": images.num_train,
                "num_held_out": len(images.held_out),
                "image_shape": images.image_shape,
                "fingerprint": images.fingerprint(),
            },
            "features": list(subject.spaces),
            "measures": {key: value.to_dict() | {"name": value.name} for key, value in
                         found.measures.items()},
            "verdict": metrics.verdict(found.measures)._asdict() if judged else None,
            "skipped": found.skipped,
            "seconds": found.seconds,
            "command": None,
            "device": files.device(),
            "versions": files.versions(),
        }
    )  # fmt: skip


def _pictures(subject: Subject, found: Measured) -> dict[str, np.ndarray]:
    """What the figures draw; computed here, since the report computes nothing."""
    arrays: dict[str, np.ndarray] = {}
    samples = _model(subject.samples)
    train, held_out = (_model(x) for x in (subject.data.images, subject.data.held_out))
    if "memorized_fraction" in found.measures:
        own, control = subject.two
        arrays |= {"ratio": own.ratio, "held_out_ratio": control.ratio}
    pictures = min(subject.data.image_shape[:2]) > 1
    if not pictures:
        return arrays
    arrays |= {name: x[:_SHOWN] for name, x in
               (("samples", samples), ("training", train), ("held_out", held_out))}  # fmt: skip
    if "memorized_fraction" in found.measures:
        copied = np.argsort(own.ratio, kind="stable")[:_SHOWN]
        novel = np.argsort(-own.d1, kind="stable")[:_SHOWN]
        d = np.sqrt(np.prod(subject.data.image_shape))
        arrays |= {
            **{"copied": samples[copied], "copied_source": train[own.index[copied]]},
            **{"copied_ratio": own.ratio[copied], "novel": samples[novel]},
            **{"novel_nearest": train[own.index[novel]], "novel_rms": own.d1[novel] / d},
        }
    if "patch_sources" in found.measures:
        side = found.measures["patch_sources"].constants["side"]
        shown = _of_all_kinds(found.measures["patch_sources"].per_sample)
        sources = metrics.tile_sources(subject.samples[shown], subject.data.images, side)
        arrays |= {
            **{"mosaic_samples": samples[shown], "mosaic_sources": sources},
            **{"mosaic_images": _assembled(samples[shown], train, sources, side)},
            "mosaic_side": np.asarray(side),
        }
    if "spectrum_distance" in found.measures:
        spectra = [metrics.radial_spectrum(x) for x in subject.arrays()]
        arrays["frequency"] = spectra[0].frequency
        for name, spectrum in zip(("generated", "train", "held_out"), spectra, strict=True):
            arrays[f"spectrum_{name}"] = spectrum.power
    return arrays


def _of_all_kinds(counts: Any) -> np.ndarray:
    """Samples evenly from those with the fewest sources to those with the most."""
    order = np.argsort(counts, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(_MOSAICS, len(order))).round())
    return order[places.astype(int)]


def _model(images: np.ndarray) -> np.ndarray:
    return np.asarray(_pixels.to_model(images), np.float32)


def _assembled(
    samples: np.ndarray, train: np.ndarray, sources: np.ndarray, side: int
) -> np.ndarray:
    """Each tile replaced by the same tile of its source; tiles without one stay."""
    made = samples.copy()
    for (q, r, c), source in np.ndenumerate(sources):
        if source >= 0:
            i, j = (
                tile_starts(n, side)[k] for n, k in zip(samples.shape[1:3], (r, c), strict=True)
            )
            made[q, i : i + side, j : j + side] = train[source, i : i + side, j : j + side]
    return made
