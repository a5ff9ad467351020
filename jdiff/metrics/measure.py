"""What every measure returns: a number, never without its control and its interval.

The control is the same number for held-out real images, so that a value can be read: a set of
samples memorizes no more than real images do, or it does. A measure of a denoiser has one number a
noise level: its value, interval and control are arrays [T].
"""

import dataclasses
from typing import Any

import numpy as np

from jdiff.metrics.intervals import Interval

# A float; of a denoiser float64 [T]. A union would have to be told apart wherever one is read.
Number = Any
Ends = Interval | tuple[np.ndarray, np.ndarray]


# Arrays compare element by element, so that equality is written out below.
@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """One measured number, or one a noise level.

    Attributes:
      name: as in results.json, for example "memorized_fraction".
      value: the number; of a denoiser float64 [T], with the levels in constants["sigmas"].
      interval: its 95 % interval (low, high), each like `value`, or None.
      control: the same number for held-out images, or None where the measure is a contrast.
      control_interval: the control's interval, or None.
      n: how many samples the value was taken over.
      features: the space distances were taken in: "pixels" ([0, 1]), "features" (given as rank 2),
        or a name put there with `dataclasses.replace`.
      constants: what the number depends on: thresholds, sizes, all of JSON types.
      per_sample: [n] or [n, T] the values behind the number (or as the measure says), or None;
        neither stored, compared nor printed.

    Example:
      >>> print(Measure("nearest_rms", 0.25, (0.2, 0.3), 0.5, (0.4, 0.6), 9, "pixels", {"d": 64}))
      nearest_rms (pixels) = 0.25 [0.2, 0.3]; control 0.5 [0.4, 0.6]; n = 9; d = 64
      >>> value = np.array([0.01, 0.2, 0.1])
      >>> print(Measure("psnr_gap", value, None, None, None, 9, "pixels"))
      psnr_gap (pixels) = 0.01 .. 0.2 over 3 sigmas; n = 9
    """

    name: str
    value: Number
    interval: Ends | None
    control: Number | None
    control_interval: Ends | None
    n: int
    features: str
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)
    per_sample: np.ndarray | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        """Refuses numbers that are none: nothing returns NaN in silence."""
        for field in ("value", "interval", "control", "control_interval"):
            numbers = getattr(self, field)
            if numbers is not None and not np.all(np.isfinite(np.asarray(numbers, np.float64))):
                raise ValueError(
                    f"{self.name} has no finite {field} here: the samples or features are too "
                    "large for it, or too few of them differ."
                )

    @property
    def title(self) -> str:
        """The name to print, with the feature space: on pixels a Fréchet distance is no FID."""
        if self.name == "frechet_distance" and self.features == "pixels":
            return "pixel Fréchet distance"
        name = "Fréchet distance" if self.name == "frechet_distance" else self.name
        return f"{name} ({self.features})"

    def to_dict(self) -> dict[str, Any]:
        """The entry under `measures[name]` of a row of results.json; arrays become lists."""
        return {
            "value": _plain(self.value),
            "interval": _plain(self.interval),
            "control": _plain(self.control),
            "control_interval": _plain(self.control_interval),
            "n": self.n,
            "features": self.features,
            "constants": dict(self.constants),
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Measure):
            return NotImplemented
        return self.name == other.name and self.to_dict() == other.to_dict()

    def __str__(self) -> str:
        over = ""
        if isinstance(self.value, np.ndarray):
            over = f" over {len(self.value)} sigma{'s' if len(self.value) > 1 else ''}"
        parts = [f"{self.title} = {_number(self.value, self.interval)}{over}"]
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


def _plain(value: Number | Ends | None) -> Any:
    """Numbers as they are, arrays and pairs as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(end) for end in value] if isinstance(value, tuple) else value


def _number(value: Number, interval: Ends | None) -> str:
    if interval is None:
        return _short(value)
    low, high = float(np.min(interval[0])), float(np.max(interval[1]))
    return f"{_short(value)} [{_short(low)}, {_short(high)}]"


def _short(value: Any) -> str:
    """One number in three digits; many numbers as their smallest and largest."""
    several = isinstance(value, np.ndarray | list) and len(value) > 0
    if several and all(isinstance(x, float) for x in value):
        low, high = _short(float(min(value))), _short(float(max(value)))
        return low if low == high else f"{low} .. {high}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
