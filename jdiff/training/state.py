"""What training carries from step to step, and what a user sets before it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jdiff import _check
from jdiff.denoisers.network import PRECONDITIONINGS
from jdiff.noise import training_noise


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; hashable, as it is part of the compiled step's cache key.

    Attributes:
      steps: optimizer steps.
      batch_size: examples a step over all devices, drawn with replacement.
      learning_rate: of AdamW (or SGD) after warm-up.
      schedule: "constant", or "cosine": from learning_rate down to 0 at the last step.
      warmup: steps over which the learning rate rises linearly from 0.
      weight_decay: of AdamW.
      ema_decay: of the weights' moving average, which is what is sampled; it starts lower, as
        min(ema_decay, (1 + t) / (10 + t)).
      preconditioning: edm, x0, eps or v; None takes the network's own default.
      noise: the distribution of training levels, "edm_lognormal" or "log_uniform", or one level as
        a number.
      label_dropout: the share of examples whose label is replaced by the null class; with 0 that
        class is not learned, and nothing can be guided.
      optimizer: "adamw" or "sgd".
      eval_every: steps between held-out losses; None makes twenty of them.
      eval_examples: held-out draws that each of them is a mean over, the same ones every time.
      checkpoint_every: steps between checkpoints, where there is a run directory; None makes ten.
      steps_per_call: most steps in one compiled call; None takes 1 for convolutions on the CPU,
        where their weight gradient is a hundred times slower inside a loop, else 100.
    """

    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 2e-3
    schedule: str = "constant"
    warmup: int = 100
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    preconditioning: str | None = None
    noise: float | str = "edm_lognormal"
    label_dropout: float = 0.1
    optimizer: str = "adamw"
    eval_every: int | None = None
    eval_examples: int = 512
    checkpoint_every: int | None = None
    steps_per_call: int | None = None

    def __post_init__(self) -> None:
        """Refuses values that cannot be trained with."""
        for name in ("steps", "batch_size", "eval_examples"):
            _check.integer(name, getattr(self, name))
        for name in ("eval_every", "checkpoint_every", "steps_per_call"):
            if getattr(self, name) is not None:
                _check.integer(name, getattr(self, name))
        _check.integer("warmup", self.warmup, minimum=0)
        _check.number("learning_rate", self.learning_rate, above=0)
        _check.number("weight_decay", self.weight_decay, above=0, closed="[")
        _check.number("ema_decay", self.ema_decay, above=0, below=1, closed="[")
        _check.number("label_dropout", self.label_dropout, above=0, below=1, closed="[")
        _check.choice("schedule", self.schedule, SCHEDULES)
        _check.choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.preconditioning is not None:
            _check.choice("preconditioning", self.preconditioning, PRECONDITIONINGS)
        training_noise(self.noise)
        if self.optimizer == "sgd" and self.weight_decay:
            raise ValueError(
                f"weight_decay must be 0 with optimizer='sgd', which has none; "
                f"got {self.weight_decay}."
            )

    @property
    def sigmas(self) -> float | None:
        """The one level that is trained at; None where levels are drawn from a distribution."""
        return None if isinstance(self.noise, str) else self.noise


OPTIMIZERS = {
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay),
    "sgd": lambda rate, decay: optax.sgd(rate),
}


# The share of the learning rate at a share of the steps after warm-up.
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + jnp.cos(jnp.pi * done)) / 2,
}


def learning_rate(config: TrainConfig, count: Any) -> Any:
    """The learning rate of step `count`, from 0: warm-up, then the schedule."""
    rising = jnp.minimum(1, (count + 1) / config.warmup) if config.warmup else 1.0
    done = jnp.clip((count - config.warmup) / max(1, config.steps - config.warmup), 0, 1)
    return config.learning_rate * rising * SCHEDULES[config.schedule](done)


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer with its learning rates."""
    constant = config.schedule == "constant" and not config.warmup
    rate = config.learning_rate if constant else functools.partial(learning_rate, config)
    return OPTIMIZERS[config.optimizer](rate, config.weight_decay)


class TrainState(flax.struct.PyTreeNode):
    """The state of one training run.

    Attributes:
      step: int32 scalar, optimizer steps done.
      variables: {"params": ...} and the network's statistics, where it has any.
      ema: their moving average, of the same structure.
      opt_state: the optimizer's.
    """

    step: jax.Array
    variables: Any
    ema: Any
    opt_state: Any
