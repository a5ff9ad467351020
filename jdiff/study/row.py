"""One row of a study: train or fit, sample, measure, judge."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdiff import _files, _flops, metrics, networks, noise, parallel, sampling, training
from jdiff.data import ImageData
from jdiff.denoisers import Denoiser, OptimalDenoiser
from jdiff.metrics.agreement import varies
from jdiff.sampling.solvers import SOLVERS
from jdiff.study import interpret
from jdiff.study.config import Architecture, Study
from jdiff.study.cost import FORWARDS_A_STEP
from jdiff.study.saved import save
from jdiff.training import TrainConfig
from jdiff.training.rundir import describe_module

# Folded into the study's seed: the training subset and the starting noise belong to the study.
SUBSET, NOISE = 0, 1
_BATCH_A_DEVICE = 256
# The part of a record that the work gives.
_MEASURED = (
    *("num_params", "flops_per_image", "receptive_field", "budget", "seconds", "images_per_s"),
    *("sigmas", "nfe", "measures", "left_out", "verdict", "samples"),
)


def study_key(study: Study, purpose: int) -> jax.Array:
    """The study's key for a purpose."""
    return jax.random.fold_in(jax.random.key(study.seed, impl="threefry2x32"), purpose)


class Reference:
    """What all rows on one training set share: the optimal samples and the real images' numbers."""

    def __init__(self, study: Study, data: ImageData):
        self._study, self.data = study, data
        self._compiled: set[Any] = set()  # of what samplers are compiled for

    def draw(self, denoiser: Denoiser, grid: str) -> tuple[np.ndarray, dict[str, float]]:
        """The study's samples of a denoiser; seconds {"compile", "sample"}, compilation apart."""
        count = self._study.num_samples
        # Batches of equal size, so that hardly a row is padding and the rate is the samples' own.
        batches = -(-count // (_BATCH_A_DEVICE * parallel.num_devices()))
        sample = functools.partial(
            sampling.sample,
            denoiser,
            study_key(self._study, NOISE),
            sigmas=noise.parse_grid(grid),
            solver=self._study.solver,
            batch_size=-(-count // batches),
        )
        asked = (_flops.signature(denoiser), grid)
        first = 0.0
        if asked not in self._compiled:
            # One sample makes one whole batch, padded: it compiles what the others use.
            first, _ = _timed(lambda: sample(1))
            self._compiled.add(asked)
        seconds, samples = _timed(lambda: sample(count))
        compile_seconds = max(0.0, first - seconds / batches)
        return np.asarray(samples), {"compile": compile_seconds, "sample": seconds}

    @functools.cached_property
    def optimal(self) -> tuple[np.ndarray, dict[str, float]]:
        """The Bayes-optimal denoiser's samples from the study's noise, and their seconds."""
        return self.draw(OptimalDenoiser.fit(self.data.images), self._study.sigmas)

    @functools.cached_property
    def held_out_neighbors(self) -> metrics.NearestTwo:
        """Held-out images' nearest training images."""
        return metrics.nearest_two(self.data.held_out, self.data.images)

    @functools.cached_property
    def radii(self) -> np.ndarray:
        """Radii of the training images' balls, for precision."""
        return metrics.ball_radii(self.data.images)

    @functools.cached_property
    def moments(self) -> metrics.Moments:
        """Mean and covariance of the training images, for the Fréchet distance."""
        return metrics.moments(self.data.images)

    @functools.cached_property
    def explanations(self) -> interpret.Explanations:
        """The closed forms that networks are explained by, and their samples."""

        def drawn(denoiser: Denoiser, grid: str) -> np.ndarray:
            if isinstance(denoiser, OptimalDenoiser) and grid == self._study.sigmas:
                return self.optimal[0]  # every row has been compared with these already
            return self.draw(denoiser, grid)[0]

        return interpret.Explanations(self.data, self._study.seed, drawn)


def flops_per_image(architecture: Architecture, data: ImageData) -> int:
    """FLOPs of one evaluation of a network on one image."""
    network = architecture.network(data.image_shape)
    return networks.flops_per_image(network, data.image_shape)


def settings(
    study: Study, architecture: Architecture, data: ImageData, seed: int, config: Any
) -> dict:
    """All that a row depends on: with equal settings it need not be made again."""
    return _files.plain(
        {
            "architecture": architecture.label,
            "all_options": _all_options(architecture, data),
            "data": {"name": data.name, "fingerprint": data.fingerprint()},
            "seed": seed,
            "train": None if config is None else dataclasses.asdict(config),
            "sampling": {
                "num_samples": study.num_samples,
                "sigmas": study.sigmas,
                "solver": study.solver,
                "seed": study.seed,
            },
        }
    )


def identity(architecture: Architecture, data: ImageData, seed: int) -> dict:
    """The part of a record that is known before the work."""
    return {
        "label": architecture.label,
        "architecture": architecture.name,
        "options": dict(architecture.options),
        "all_options": _all_options(architecture, data),
        "preconditioning": None,
        "data": data.name,
        "num_train": data.num_train,
        "seed": seed,
        "status": "ok",
        "error": None,
        **dict.fromkeys(_MEASURED),  # a failed row has every key too
    }


def _all_options(architecture: Architecture, data: ImageData) -> dict[str, Any] | None:
    """A network's options, those too that its string leaves out; None of a closed form."""
    if architecture.closed_form:
        return None
    return describe_module(architecture.network(data.image_shape))["options"]


def make(
    study: Study,
    architecture: Architecture,
    reference: Reference,
    seed: int,
    config: TrainConfig | None,
    run_dir: Path,
    progress: bool,
) -> dict:
    """Does a row's work and writes its files but row.json; returns the rest of its record."""
    data = reference.data
    if config is None:
        denoiser, record = _fit(study, architecture, data, run_dir)
    else:
        denoiser, record = _train(architecture, data, seed, config, run_dir, progress)
    # The optimal row's samples are those that every row is compared with.
    plain_optimal = architecture.name == "optimal" and not architecture.options
    named = architecture.per_level or study.sigmas
    samples, seconds = reference.optimal if plain_optimal else reference.draw(denoiser, named)
    record["seconds"]["compile"] += seconds["compile"]
    record["seconds"]["sample"] = seconds["sample"]
    record["images_per_s"]["sample"] = study.num_samples / seconds["sample"]
    grid = noise.parse_grid(named)
    record["sigmas"] = named
    record["nfe"] = SOLVERS[study.solver].nfe(len(grid) - 1)

    neighbors = metrics.nearest_two(samples, data.images)
    optimal = reference.optimal[0]
    if named != study.sigmas:
        optimal = reference.explanations.optimal(named)
    measures = _measure(samples, reference, neighbors, optimal)
    record["left_out"] = {}  # measures that could not be taken, with the reason
    if study.interpret and not architecture.closed_form:
        explained = reference.explanations.of(denoiser, samples, named)
        measures |= explained.measures
        record["left_out"] = explained.skipped
    record["measures"] = {name: value.to_dict() for name, value in measures.items()}
    record["verdict"] = metrics.verdict(measures)._asdict()
    record["samples"] = f"runs/{run_dir.name}/samples.npz"
    if parallel.is_writer():
        held_out = reference.held_out_neighbors
        _files.write_arrays(
            run_dir / "samples.npz",
            images=samples,
            sigmas=grid,
            seed=study.seed,
            solver=study.solver,
        )
        _files.write_arrays(
            run_dir / "neighbors.npz",
            nearest=data.images[neighbors.index],
            d1=neighbors.d1,
            d2=neighbors.d2,
            held_out_d1=held_out.d1,
            held_out_d2=held_out.d2,
        )
    return record


def _fit(
    study: Study, architecture: Architecture, data: ImageData, run_dir: Path
) -> tuple[Denoiser, dict]:
    started = time.perf_counter()
    denoiser = architecture.fit(data, study.sigmas, study.seed)
    jax.block_until_ready(jax.tree.leaves(denoiser))
    fit_seconds = time.perf_counter() - started
    if parallel.is_writer():
        described = {"name": data.name, "num_train": data.num_train}
        described["fingerprint"] = data.fingerprint()
        save(run_dir, denoiser, {"architecture": architecture.label, "data": described})
    return denoiser, {
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(denoiser)),
        "flops_per_image": _flops.count_denoiser(denoiser, denoiser.image_shape),
        "budget": None,
        "seconds": {"compile": 0.0, "fit": fit_seconds, "train": None, "sample": None},
        "images_per_s": {"train": None, "sample": None},
    }


def _train(
    architecture: Architecture,
    data: ImageData,
    seed: int,
    config: TrainConfig,
    run_dir: Path,
    progress: bool,
) -> tuple[Denoiser, dict]:
    network = architecture.network(data.image_shape)
    options: Any = {
        "key": jax.random.key(seed, impl="threefry2x32"),
        "run_dir": run_dir,
        "progress": progress,
    }
    if architecture.per_level is None:
        result, num_networks = training.train(network, data, config, **options), 1
    else:
        grid = noise.parse_grid(architecture.per_level)
        result, num_networks = (
            training.train_levels(network, data, config, grid, **options),
            len(grid) - 1,
        )
    flops = networks.flops_per_image(network, data.image_shape)
    steps = config.steps * num_networks
    images = steps * config.batch_size
    return result.denoiser, {
        "preconditioning": result.denoiser.preconditioning,
        "num_params": networks.num_params(network, data.image_shape) * num_networks,
        "flops_per_image": flops,
        "receptive_field": networks.receptive_field(network, data.image_shape),
        "budget": {
            "steps": steps,
            "networks": num_networks,  # which share the steps
            "images": images,
            "flops": FORWARDS_A_STEP * flops * images,
        },
        "seconds": {**result.seconds, "sample": None},
        "images_per_s": {"train": result.images_per_s, "sample": None},
    }


def _measure(
    samples: np.ndarray, reference: Reference, neighbors: metrics.NearestTwo, optimal: np.ndarray
) -> dict[str, metrics.Measure]:
    data = reference.data
    arrays = (samples, data.images, data.held_out)
    known: Any = {"neighbors": neighbors, "held_out_neighbors": reference.held_out_neighbors}
    measures = {
        "memorized_fraction": metrics.memorized_fraction(*arrays, **known),
        "memorized_fraction_half": metrics.memorized_fraction(*arrays, c=0.5, **known),
        "nearest_rms": metrics.nearest_rms(*arrays, **known),
        "precision": metrics.precision(*arrays, radii=reference.radii),
        "frechet_distance": metrics.frechet_distance(*arrays, train_moments=reference.moments),
    }
    # A correlation over one or two values says nothing.
    if math.prod(data.image_shape) > 2:
        r = _agreement(samples, optimal)
        if r is not None:
            measures["pearson_r_to_optimal"] = r
    return measures


def _agreement(samples: np.ndarray, optimal: np.ndarray) -> metrics.Measure | None:
    """Pearson's r to the optimal samples; pairs with a constant image have none and are counted."""
    vary = varies(samples) & varies(optimal)
    if np.sum(vary) < 2:
        return None
    r = metrics.pearson_r(samples[vary], optimal[vary])
    left_out = {"constant_pairs_left_out": int(np.sum(~vary))}
    return dataclasses.replace(r, constants={**r.constants, **left_out})


def _timed(work: Callable[[], jax.Array]) -> tuple[float, jax.Array]:
    started = time.perf_counter()
    result = jax.block_until_ready(work())
    return time.perf_counter() - started, result
