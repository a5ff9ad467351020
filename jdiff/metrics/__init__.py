"""Measures: copies, creations or nonsense, each with its control and interval."""

from jdiff.metrics.agreement import (
    agreements,
    cosine,
    determination,
    explained_by,
    mse,
    pearson_r,
    r_squared,
)
from jdiff.metrics.copying import copying_z
from jdiff.metrics.denoising import equivariance_error, psnr_gap
from jdiff.metrics.distinct import distinct
from jdiff.metrics.intervals import bootstrap_mean, parts_interval, wilson
from jdiff.metrics.jacobian import JacobianEigen, jacobian_eigen
from jdiff.metrics.kernel import kernel_distance
from jdiff.metrics.locality import locality_profile
from jdiff.metrics.manifolds import ball_radii, coverage, density, prdc, precision, recall
from jdiff.metrics.measure import Measure
from jdiff.metrics.memorization import (
    NearestTwo,
    authenticity,
    calibrated_distance,
    copy_rate,
    memorized_fraction,
    nearest_rms,
    nearest_two,
)
from jdiff.metrics.neighbors import (
    CosineNeighbors,
    Neighbors,
    inside_balls,
    nearest,
    nearest_cosine,
)
from jdiff.metrics.patches import mosaic_consistency, patch_sources, tile_sources, tile_starts
from jdiff.metrics.realism import Moments, frechet_distance, moments
from jdiff.metrics.spectrum import RadialSpectrum, radial_spectrum, spectrum_distance
from jdiff.metrics.splits import effective_memorization, two_split_agreement
from jdiff.metrics.vendi import vendi
from jdiff.metrics.verdict import Verdict, verdict

__all__ = [
    "CosineNeighbors",
    "JacobianEigen",
    "Measure",
    "Moments",
    "NearestTwo",
    "Neighbors",
    "RadialSpectrum",
    "Verdict",
    "agreements",
    "authenticity",
    "ball_radii",
    "bootstrap_mean",
    "calibrated_distance",
    "copy_rate",
    "copying_z",
    "cosine",
    "coverage",
    "density",
    "determination",
    "distinct",
    "effective_memorization",
    "equivariance_error",
    "explained_by",
    "frechet_distance",
    "inside_balls",
    "jacobian_eigen",
    "kernel_distance",
    "locality_profile",
    "memorized_fraction",
    "moments",
    "mosaic_consistency",
    "mse",
    "nearest",
    "nearest_cosine",
    "nearest_rms",
    "nearest_two",
    "parts_interval",
    "patch_sources",
    "pearson_r",
    "prdc",
    "precision",
    "psnr_gap",
    "r_squared",
    "radial_spectrum",
    "recall",
    "spectrum_distance",
    "tile_sources",
    "tile_starts",
    "two_split_agreement",
    "vendi",
    "verdict",
    "wilson",
]
