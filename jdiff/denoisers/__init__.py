"""Denoisers: closed forms, trained networks and any function, all called alike."""

from jdiff.denoisers.bottleneck import BottleneckDenoiser
from jdiff.denoisers.equivariant_linear import EquivariantLinearDenoiser
from jdiff.denoisers.guidance import GuidedDenoiser, guide
from jdiff.denoisers.linear import LinearDenoiser
from jdiff.denoisers.local_linear import LocalLinearDenoiser
from jdiff.denoisers.network import NetworkDenoiser
from jdiff.denoisers.optimal import OptimalDenoiser
from jdiff.denoisers.patch_polynomial import PatchPolynomialDenoiser
from jdiff.denoisers.per_level import PerLevelDenoiser
from jdiff.denoisers.polynomial import PolynomialDenoiser
from jdiff.denoisers.protocol import Denoiser, wrap
from jdiff.denoisers.random_polynomial import RandomPolynomialDenoiser

__all__ = [
    "BottleneckDenoiser",
    "Denoiser",
    "EquivariantLinearDenoiser",
    "GuidedDenoiser",
    "LinearDenoiser",
    "LocalLinearDenoiser",
    "NetworkDenoiser",
    "OptimalDenoiser",
    "PatchPolynomialDenoiser",
    "PerLevelDenoiser",
    "PolynomialDenoiser",
    "RandomPolynomialDenoiser",
    "guide",
    "wrap",
]
