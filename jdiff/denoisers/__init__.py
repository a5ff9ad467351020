"""Denoisers: closed forms, trained networks and any function, all called alike."""

from jdiff.denoisers.linear import LinearDenoiser
from jdiff.denoisers.network import NetworkDenoiser
from jdiff.denoisers.optimal import OptimalDenoiser
from jdiff.denoisers.protocol import Denoiser, wrap

__all__ = ["Denoiser", "LinearDenoiser", "NetworkDenoiser", "OptimalDenoiser", "wrap"]
