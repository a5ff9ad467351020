"""What every measure returns: a number, never without its control and its interval.

The control is the same number for held-out real images, so that a value can be read: a set of
samples memorizes no more than real images do, or it does.
"""

import dataclasses
from typing import Any

import numpy as np

from jdiff.metrics.intervals import Interval


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measured number.

    Attributes:
      name: as in results.json, for example "memorized_fraction".
      value: the number.
      interval: its 95 % interval (low, high), or None.
      control: the same number for held-out images, or None where the measure is a contrast.
      control_interval: the control's interval, or None.
      n: how many samples the value was taken over.
      features: the space distances were taken in: "pixels" ([0, 1]), "features" (given as rank 2),
        or a name put there with `dataclasses.replace`.
      constants: what the number depends on: thresholds, sizes, all of JSON types.
      per_sample: [n] the values behind the number, or None; neither stored, compared nor printed.

    Example:
      >>> print(Measure("nearest_rms", 0.25, (0.2, 0.3), 0.5, (0.4, 0.6), 9, "pixels", {"d": 64}))
      nearest_rms (pixels) = 0.25 [0.2, 0.3]; control 0.5 [0.4, 0.6]; n = 9; d = 64
    """

    name: str
    value: float
    interval: Interval | None
    control: float | None
    control_interval: Interval | None
    n: int
    features: str
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)
    per_sample: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def title(self) -> str:
        """The name to print, with the feature space: on pixels a Fréchet distance is no FID."""
        if self.name == "frechet_distance" and self.features == "pixels":
            return "pixel Fréchet distance"
        name = "Fréchet distance" if self.name == "frechet_distance" else self.name
        return f"{name} ({self.features})"

    def to_dict(self) -> dict[str, Any]:
        """The entry under `measures[name]` of a row of results.json."""
        return {
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "control": self.control,
            "control_interval": (
                None if self.control_interval is None else list(self.control_interval)
            ),
            "n": self.n,
            "features": self.features,
            "constants": dict(self.constants),
        }

    def __str__(self) -> str:
        parts = [f"{self.title} = {_number(self.value, self.interval)}"]
        if self.control is not None:
            parts.append(f"control {_number(self.control, self.control_interval)}")
        parts.append(f"n = {self.n}")
        # A flag that is set prints as its words ("fewer points than features").
        constants = [
            name.replace("_", " ") if value is True else f"{name} = {_short(value)}"
            for name, value in self.constants.items()
            if value is not False
        ]
        return "; ".join(parts + ([", ".join(constants)] if constants else []))


def _number(value: float, interval: Interval | None) -> str:
    if interval is None:
        return _short(value)
    return f"{_short(value)} [{_short(interval[0])}, {_short(interval[1])}]"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
