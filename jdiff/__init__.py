"""jdiff: what does a denoiser's architecture make a diffusion model generate?

Copies of the training set, creations or nonsense. Everything is a denoiser, a callable pytree
`denoiser(y, sigma, labels=None) -> x_hat`: the Bayes-optimal one copies, a linear one creates a
Gaussian, a network does what its architecture makes it do. One sampler samples them all, one set
of measures judges them, one report compares them.

Reference: Levine and Weiss, "Diffusion Models, Denoiser Architecture and Creativity", 2026,
arXiv 2605.16415.
"""

from jdiff import (
    data,
    denoisers,
    metrics,
    networks,
    noise,
    parallel,
    report,
    sampling,
    study,
    theory,
    training,
)
from jdiff._version import __version__ as __version__
from jdiff.data import ImageData
from jdiff.denoisers import Denoiser, LinearDenoiser, NetworkDenoiser, OptimalDenoiser
from jdiff.sampling import sample, solve
from jdiff.study import load
from jdiff.training import TrainConfig, TrainResult, train

__all__ = [
    "Denoiser",
    "ImageData",
    "LinearDenoiser",
    "NetworkDenoiser",
    "OptimalDenoiser",
    "TrainConfig",
    "TrainResult",
    "data",
    "denoisers",
    "load",
    "metrics",
    "networks",
    "noise",
    "parallel",
    "report",
    "sample",
    "sampling",
    "solve",
    "study",
    "theory",
    "train",
    "training",
]
