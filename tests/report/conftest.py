"""A made-up study: four architectures, one of them failed, with numbers that occur only once."""

import numpy as np
import pytest

from jdiff.report import Pictures, Row


def measure(value, *, features="pixels", control: float | None = 0.011, **constants):
    return {
        "value": value,
        "interval": [value - 0.0101, value + 0.0102],
        "control": control,
        "control_interval": control and [control - 0.0103, control + 0.0104],
        "n": 20,
        "features": features,
        "constants": constants,
    }


def make_pictures(rng, n=20, shape=(8, 8, 1), *, history=True):
    samples = rng.uniform(-1.2, 1.2, (n, *shape)).astype(np.float32)
    d1, held_out_d1 = rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, 12)
    step = np.arange(1, 41) * 10
    curves = {
        "step": step,
        "loss": np.exp(-step / 100.0),
        "held_out_step": step[::10],
        "held_out_loss": np.exp(-step[::10] / 150.0),
    }
    return Pictures(
        samples,
        rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        d1,
        d1 * rng.uniform(1, 5, n),
        held_out_d1,
        held_out_d1 * rng.uniform(1, 5, 12),
        curves if history else None,
    )


def make_record(label, word="creates", shift=0.0):
    return {
        "label": label,
        "architecture": label.split(":")[0],
        "options": {"width": 32},
        "preconditioning": "edm",
        "data": "digits",
        "num_train": 1437,
        "seed": 0,
        "status": "ok",
        "error": None,
        "num_params": 353_409,
        "flops_per_image": 14_200_321,
        "budget": {"steps": 4000, "images": 512_000, "flops": 2.18e13},
        "seconds": {"compile": 8.3125, "train": 100.25, "sample": 0.875},
        "images_per_s": {"train": 5120.5, "sample": 402.25},
        "nfe": 18,
        "measures": {
            "memorized_fraction": measure(0.3125 + shift, c=1 / 3),
            "nearest_rms": measure(0.129317 + shift, control=0.1271),
            "precision": measure(0.871234 + shift, control=0.9713, k=5),
            "frechet_distance": measure(0.104217 + shift, control=0.1035),
            "pearson_r_to_optimal": {"value": 0.47312, "interval": [0.46, 0.48], "control": None},
        },
        "verdict": {"word": word, "reason": f"because of the numbers of {label}"},
        "samples": "runs/a/samples.npz",
    }


SIGMAS = [2.0, 0.2, 0.02]
REFERENCES = ("optimal", "linear", "local_linear 5")


def by_level(values, control=None, sigmas=SIGMAS, **constants):
    """A measure with one value a noise level."""
    return {
        "value": list(values),
        "interval": None,
        "control": control,
        "control_interval": None,
        "n": 64,
        "features": "pixels",
        "constants": {"sigmas": list(sigmas), **constants},
    }


def explain(record, shift=0.0, sigmas=SIGMAS, step=4):
    """Adds the measures of a network's denoiser to a record."""
    levels, measures = len(sigmas), record["measures"]
    measures["psnr_gap"] = by_level([0.5 + shift] * levels, None, sigmas)
    measures["locality_profile 75%"] = by_level([3.0 + shift] * levels, [2.5] * levels, sigmas)
    measures["equivariance_error step 1"] = by_level([0.25 + shift] * levels, None, sigmas)
    measures[f"equivariance_error step {step}"] = by_level([0.125 + shift] * levels, None, sigmas)
    for place, reference in enumerate(REFERENCES):
        for name in ("pearson_r", "r_squared", "determination", "cosine", "mse"):
            r = 0.25 * (place + 1) + shift
            values = [r - 0.125, r, r + 0.125][:levels] + [r] * (levels - 3)
            measures[f"explained_by {reference} {name}"] = by_level(values, None, sigmas)
            measures[f"explained_by samples of {reference} {name}"] = measure(1 - r, control=None)
    return record


def make_seeds(rng, labels=("unet", "unet:skips=false"), seeds=3, *, bare=False):
    """Rows of several seeds, which differ by 0.015625, explained and with pictures, or bare."""
    rows = []
    for place, label in enumerate(labels):
        for seed in range(seeds):
            shift = 0.0625 * place + 0.015625 * seed
            record = make_record(label, shift=shift)
            record |= {"seed": seed, "receptive_field": 5 + place, "sigmas": "karras:18"}
            if not bare:
                explain(record, shift)
            rows.append(Row(record, None if bare else make_pictures(rng)))
    return rows


@pytest.fixture
def rows(rng):
    """Rows with everything (a network, a closed form), with holes, and one that failed."""
    closed = make_record("optimal", "memorizes", shift=0.05)
    closed.update(num_params=None, preconditioning=None, budget=None)
    closed["images_per_s"] = {"train": None, "sample": 9000.0}
    holes = {
        "label": "mlp",
        "status": "ok",
        "nfe": float("nan"),
        "verdict": None,
        "measures": {"memorized_fraction": {"value": None}, "precision": None},
    }
    failed = {"label": "resnet", "status": "failed", "error": "loss is NaN at step <420>"}
    return [
        Row(closed, make_pictures(rng, history=False)),
        Row(make_record("unet"), make_pictures(rng)),
        Row(holes),
        Row(failed),
    ]


@pytest.fixture
def results():
    """What results.json says besides its rows."""
    return {
        "schema": 1,
        "study": {"name": "demo", "solver": "heun", "sigmas": [80.0, 1.0, 0.0], "seed": 7},
        "command": "jdiff study demo",
        "device": "a CPU",
        "versions": {"jdiff": "0.1.0", "jax": "0.10.2"},
        "notes": ["Held-out digits were drawn at random."],
    }


@pytest.fixture
def data(rng):
    """What the report says of the data set."""
    images = rng.integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)
    return {
        "name": "digits",
        "num_train": 1437,
        "num_held_out": 360,
        "image_shape": (8, 8, 1),
        "images": images,
        "held_out": images[::-1],
    }


@pytest.fixture
def make():
    """The makers themselves: make.record(label, ...), make.pictures(rng, ...), and so on."""

    class Make:
        record = staticmethod(make_record)
        pictures = staticmethod(make_pictures)
        seeds = staticmethod(make_seeds)
        explain = staticmethod(explain)
        by_level = staticmethod(by_level)

    return Make
