"""Training: a network and images in, a denoiser and its history out."""

from jdiff.training.levels import check_noise, train_levels
from jdiff.training.loop import TRAIN, TrainResult, check_arguments, check_network, train
from jdiff.training.state import TrainConfig, TrainState

__all__ = [
    "TRAIN",
    "TrainConfig",
    "TrainResult",
    "TrainState",
    "check_arguments",
    "check_network",
    "check_noise",
    "train",
    "train_levels",
]
