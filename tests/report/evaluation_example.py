"""A made-up evaluation: numbers that occur only once, arrays of every group."""

import numpy as np

SIGMAS = [2.0, 0.5, 0.02]


def measure(name, value, control=None, width=0.0101, *, n=20, features="pixels", **constants):
    """One entry of the record; lists are one value a noise level."""

    def ends(x):
        low, high = np.asarray(x) - width, np.asarray(x) + 2 * width
        return [low.tolist(), high.tolist()]

    if isinstance(value, list):
        constants |= {"sigmas": SIGMAS}
    return {
        "name": name,
        "value": value,
        "interval": ends(value),
        "control": control,
        "control_interval": None if control is None else ends(control),
        "n": n,
        "features": features,
        "constants": constants,
    }


def make_record(**more):
    entries = {
        "recall": measure("recall", 0.71234, 0.9123, k=5),
        "memorized_fraction": measure("memorized_fraction", 0.3125, 0.0171, c=0.5),
        "memorized_fraction_third": measure("memorized_fraction", 0.2125, 0.0161, c=1 / 3),
        "copying_z": measure("copying_z", -7.2123, width=1.2),
        "patch_sources": measure("patch_sources", 7.4321, 8.9123, side=2),
        "precision": measure("precision", 0.81234, 0.9713, k=5),
        "frechet_distance": measure("frechet_distance", 0.2142, 0.1035),
        "frechet_distance (encoder)": measure(
            "frechet_distance", 3.2142, 1.1035, features="encoder"
        ),
        "psnr_gap": measure(
            "psnr_gap",
            [0.1123, 2.5123, 0.0312],
            psnr_train=[20.0, 25.0, 34.0],
            psnr_held_out=[19.9, 22.5, 33.9],
        ),
        "locality_profile 50%": measure(
            "locality_profile", [7.1, 5.2, 3.3], [7.2, 5.3, 3.4], q=0.5
        ),
        "locality_profile 95%": measure(
            "locality_profile", [15.0, 9.2, 7.3], [15.0, 9.3, 7], q=0.95
        ),
        "equivariance_error step 1": measure("equivariance_error", [0.51, 0.31, 0.21], step=1),
        "explained_by optimal pearson_r": measure(
            "pearson_r", [0.91, 0.82, 0.73], [0.9, 0.8, 0.7], reference="optimal"
        ),
        "explained_by optimal mse": measure("mse", [0.091, 0.082, 0.073], reference="optimal"),
        "novelty_of_mine": measure("novelty_of_mine", 41.25, 42.75),
    }
    return {
        "schema": 1,
        "kind": "evaluation",
        "title": "unet:width=32",
        "samples": {"source": "runs/a", "num": 20, "solver": "heun", "seed": 7},
        "data": {
            "name": "digits",
            "num_train": 1437,
            "num_held_out": 360,
            "image_shape": [8, 8, 1],
        },
        "measures": entries,
        "verdict": {"word": "mixed", "reason": "31.2% of the samples are copies."},
        "skipped": {"two_split_agreement": "it needs two networks <sic>"},
        "command": "jdiff evaluate runs/a",
        "device": "a CPU",
        "versions": {"jdiff": "0.1.0"},
        "seconds": {"neighbors": 1.25},
    } | more


def make_arrays(shape=(8, 8, 1), side=4, seed=0):
    rng = np.random.default_rng(seed)
    images = lambda n: rng.uniform(-1.2, 1.2, (n, *shape)).astype(np.float32)
    tiles = (-(-shape[0] // side), -(-shape[1] // side))
    sources = rng.integers(0, 1437, (3, *tiles))
    sources[0], sources[1, 0, 0] = 977, -1  # a copy; a constant tile
    sources[2, 0] = sources[2, -1, 0]  # three of four tiles
    spectrum = lambda: rng.uniform(0.1, 1, 6)
    return {
        "ratio": rng.uniform(0.1, 1, 20),
        "held_out_ratio": rng.uniform(0.6, 1, 12),
        "copied": images(3),
        "copied_source": images(3),
        "copied_ratio": np.array([0.1234, 0.3789, 0.6123]),
        "novel": images(4),
        "novel_nearest": images(4),
        "novel_rms": np.array([0.4123, 0.4012, 0.3901, 0.3812]),
        "mosaic_samples": images(3),
        "mosaic_images": images(3),
        "mosaic_sources": sources,
        "mosaic_side": np.asarray(side),
        "frequency": np.arange(6) / 8,
        "spectrum_generated": spectrum(),
        "spectrum_train": spectrum(),
        "spectrum_held_out": spectrum(),
        "samples": images(5),
        "training": rng.integers(0, 256, (6, *shape), dtype=np.uint8),
        "held_out": images(7),
    }
