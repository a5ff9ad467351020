"""Measures of samples: copies, creations or nonsense, each with its control and interval."""

from jdiff.metrics.agreement import mse, pearson_r
from jdiff.metrics.intervals import bootstrap_mean, parts_interval, wilson
from jdiff.metrics.measure import Measure
from jdiff.metrics.memorization import NearestTwo, memorized_fraction, nearest_rms, nearest_two
from jdiff.metrics.neighbors import Neighbors, distinct, inside_balls, nearest
from jdiff.metrics.realism import Moments, ball_radii, frechet_distance, moments, precision
from jdiff.metrics.verdict import Verdict, verdict

__all__ = [
    "Measure",
    "Moments",
    "NearestTwo",
    "Neighbors",
    "Verdict",
    "ball_radii",
    "bootstrap_mean",
    "distinct",
    "frechet_distance",
    "inside_balls",
    "memorized_fraction",
    "moments",
    "mse",
    "nearest",
    "nearest_rms",
    "nearest_two",
    "parts_interval",
    "pearson_r",
    "precision",
    "verdict",
    "wilson",
]
