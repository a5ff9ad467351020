"""What a study is: data, architectures, sizes, seeds, budget; frozen, all kept in study.json."""

import dataclasses
import re
from typing import Any, ClassVar

import numpy as np

from jdiff import _check, networks, noise
from jdiff.data import ImageData
from jdiff.denoisers import Denoiser
from jdiff.denoisers.network import PRECONDITIONINGS
from jdiff.metrics.distinct import repeats
from jdiff.sampling.solvers import SOLVERS
from jdiff.study.claims import CLAIMS
from jdiff.study.closed_forms import CLOSED_FORMS
from jdiff.training.state import SCHEDULES

# Precision takes the fifth neighbour of every training image, the Fréchet distance's interval ten
# parts of at least two samples.
LEAST_TRAIN, LEAST_SAMPLES = 6, 20
# Options that every network has beside those of its class: its row of the preconditionings; a grid,
# for one network at each of its levels.
NETWORK_OPTIONS = ("preconditioning", "per_level")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture, as a string `name[:option=value,...]` names it everywhere.

    Attributes:
      name: a closed form or a network.
      options: (option, value) pairs, in order.
      label: what reports call it; the string itself unless given.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        """Fills the label and refuses unknown names and options."""
        names = [*CLOSED_FORMS, *networks.NETWORKS, *networks.PRESETS]
        _check.choice("architecture", self.name, names)
        if self.name in CLOSED_FORMS and self.name in networks.NETWORKS:
            raise ValueError(
                f"architecture {self.name} is a closed form and a registered network: register the "
                "network under another name."
            )
        if self.name in CLOSED_FORMS:
            form, given = CLOSED_FORMS[self.name], dict(self.options)
            _check.options(f"option of {self.name}", given, form.options)
            for option in form.needed:
                if option not in given:
                    raise ValueError(
                        f"architecture {self.name} needs {option}, as in {self.name}:{option}=3."
                    )
            if "sigmas" in given:
                noise.parse_grid(str(given["sigmas"]))  # sigmas=5 was read as a number
        else:
            given = dict(self.options)
            if "preconditioning" in given:
                _check.choice("preconditioning", given["preconditioning"], PRECONDITIONINGS)
            if "per_level" in given:
                _check_per_level(given["per_level"])
        if not self.label:
            spelled = ",".join(f"{name}={_spell(value)}" for name, value in self.options)
            object.__setattr__(self, "label", f"{self.name}:{spelled}" if spelled else self.name)

    @classmethod
    def parse(cls, spec: str) -> "Architecture":
        """Reads `name[:option=value,...]`; values are true, false, numbers or words.

        Raises:
          ValueError: on an unknown name, an unknown option of a closed form, or a pair without =.

        Example:
          >>> Architecture.parse("unet:width=16,skips=false").options
          (('width', 16), ('skips', False))
        """
        name, _, rest = spec.partition(":")
        options = []
        for pair in filter(None, rest.split(",")):
            option, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(
                    f"architecture must read name:option=value,...; got {pair!r} in {spec!r}."
                )
            options.append((option.strip(), _value(value.strip())))
        names = [option for option, _ in options]
        repeated = sorted({option for option in names if names.count(option) > 1})
        if repeated:
            raise ValueError(f"architecture names {repeated[0]!r} twice in {spec!r}.")
        return cls(name.strip(), tuple(options))

    @property
    def closed_form(self) -> bool:
        """Whether it is fitted, not trained."""
        return self.name in CLOSED_FORMS

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.label)

    @property
    def preconditioning(self) -> str | None:
        """The preconditioning that the string names, None for the network's own."""
        return dict(self.options).get("preconditioning")

    @property
    def per_level(self) -> str | None:
        """The grid at whose levels one network each is trained, None for one network for all."""
        return dict(self.options).get("per_level")

    def network(self, image_shape: tuple[int, int, int]) -> Any:
        """The linen module, for images of this shape."""
        options = {k: v for k, v in self.options if k not in NETWORK_OPTIONS}
        return networks.create(self.name, image_shape, **options)

    def grid(self, sigmas: str) -> np.ndarray:
        """The grid [T + 1] that it is sampled at, where `sigmas` names that of the study."""
        return noise.parse_grid(self.per_level or sigmas)

    def check(self, data: ImageData) -> None:
        """Refuses, without the work of it, what could not be built or fitted for these images."""
        if self.closed_form:
            CLOSED_FORMS[self.name].check(data, **dict(self.options))
        else:
            self.network(data.image_shape)

    def check_grid(self, name: str, grid: Any) -> None:
        """Refuses a form whose own option `sigmas` leaves out levels of the grid called `name`."""
        own = dict(self.options).get("sigmas")
        if not self.closed_form or own is None:
            return
        fitted = noise.parse_grid(own)
        near = np.isclose(np.asarray(grid)[:-1, None], fitted[None, :-1], rtol=1e-5, atol=0)
        if not near.any(1).all():
            raise ValueError(
                f"architecture {self.label} is fitted at the levels of {own} and could not be "
                f"sampled at those of sigmas {name}: leave out its option sigmas to fit it at "
                f"these, or sample at sigmas {own}."
            )

    def fit(self, data: ImageData, sigmas: Any = "karras:18", seed: int = 0) -> Denoiser:
        """The closed form, fitted.

        Args:
          data: what it is fitted to.
          sigmas: the grid, or its name, at whose levels forms that differ from level to level are
            fitted unless their own option `sigmas` says otherwise.
          seed: of random features.
        """
        grid = noise.parse_grid(sigmas) if isinstance(sigmas, str) else sigmas
        return CLOSED_FORMS[self.name].fit(data, grid, seed, **dict(self.options))


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long every network of a study trains.

    Seconds and FLOPs become steps before training starts, so that a resumed run is identical.

    Attributes:
      amount: how much.
      unit: "steps", "seconds" (of training on this machine, compilation apart) or "flops" (model
        FLOPs of training: three times the forward pass of every image).
      image_shape: with unit steps, the images that `amount` is meant for: on larger ones the steps
        are divided by the ratio of the network's FLOPs an image. None takes `amount` as it is.
    """

    amount: float
    unit: str = "steps"
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """Refuses unknown units and amounts that are not positive."""
        _check.choice("budget unit", self.unit, ("steps", "seconds", "flops"))
        _check.number("budget amount", self.amount, above=0)

    @classmethod
    def parse(cls, spec: str) -> "Budget":
        """Reads UNIT:AMOUNT, for example steps:2000, seconds:60 or flops:1e12.

        Raises:
          ValueError: on another unit, or an amount that is not a positive number.
        """
        unit, _, amount = spec.partition(":")
        try:
            return cls(float(amount), unit)
        except ValueError as error:
            raise ValueError(
                f"budget must read tiny, steps:N, seconds:N or flops:N; got {spec!r} ({error})"
            ) from None


@dataclasses.dataclass(frozen=True)
class Study:
    """A comparison of architectures on one data set, from one noise.

    Attributes:
      name: what it is called.
      data: a data set as `jdiff.data.load` reads it.
      architectures: strings as `Architecture.parse` reads them.
      num_train: training-set sizes; None is the whole set.
      seeds: training seeds: initialisation and batches. The training subset and the starting
        noise belong to `seed`, so that they are the same in all rows.
      budget: how long networks train.
      batch_size: of training.
      learning_rate: of training.
      schedule: of the learning rate, "constant" or "cosine".
      interpret: whether every network is also explained: its agreement with closed forms, how far
        it sees, how well it commutes with shifts, its gap between training and held-out images.
      num_samples: samples a row, all rows from the same noise.
      sigmas: the sampling grid, NAME:STEPS; networks for a grid of their own (per_level) are
        sampled at its levels.
      solver: a solver's name.
      seed: of training subsets and starting noise.
      held_out: the share of images to hold out of a data set that brings no held-out images.
      claims: keys of `CLAIMS` in claims.py: sentences of the literature that its report holds
        against its rows.
    """

    name: str
    data: str = "digits"
    architectures: tuple[str, ...] = ("optimal", "linear", "unet", "mlp")
    num_train: tuple[int | None, ...] = (None,)
    seeds: tuple[int, ...] = (0,)
    budget: Budget = Budget(2000)
    batch_size: int = 128
    learning_rate: float = 2e-3
    schedule: str = "constant"
    interpret: bool = False
    num_samples: int = 360
    sigmas: str = "karras:18"
    solver: str = "heun"
    seed: int = 0
    held_out: float | None = None
    claims: tuple[str, ...] = ()

    # What may be added to a study that is there.
    GROWS: ClassVar[tuple[str, ...]] = ("architectures", "num_train", "seeds")

    def __post_init__(self) -> None:
        """Refuses what cannot be run, before anything is."""
        for name in ("architectures", "num_train", "seeds"):
            check_names(name, getattr(self, name))
        labels = [architecture.label for architecture in self.parsed()]
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"architectures names {repeated[0]} more than once.")
        for n in self.num_train:
            if n is not None:
                _check.integer("num_train", n, minimum=LEAST_TRAIN)
        if self.held_out is not None:
            _check.number("held_out", self.held_out, above=0, below=1)
        for seed in (*self.seeds, self.seed):
            _check.integer("seed", seed, minimum=0)
        _check.integer("batch_size", self.batch_size)
        _check.integer("num_samples", self.num_samples, minimum=LEAST_SAMPLES)
        _check.number("learning_rate", self.learning_rate, above=0)
        _check.choice("schedule", self.schedule, SCHEDULES)
        _check.boolean("interpret", self.interpret)
        for name in self.claims:
            _check.choice("claim", name, CLAIMS)
        _check.choice("solver", self.solver, SOLVERS)
        grid = noise.parse_grid(self.sigmas)
        for architecture in self.parsed():
            architecture.check_grid(self.sigmas, grid)

    def parsed(self) -> tuple[Architecture, ...]:
        """The architectures, parsed."""
        return tuple(Architecture.parse(spec) for spec in self.architectures)

    def tiny(self) -> "Study":
        """The same study at a budget that only shows that it runs."""
        return dataclasses.replace(self, budget=Budget(60), num_samples=64)


def check_data(whole: ImageData, least_held_out: int = LEAST_SAMPLES) -> None:
    """Refuses data that the measures cannot judge by, before hours are spent on it.

    Args:
      whole: the data set of a study.
      least_held_out: how many held-out images the study's measures need.

    Raises:
      ValueError: on weights, too few training or held-out images, or held-out images that are
        training images: they are no control.
    """
    if whole.weights is not None:
        raise ValueError(
            "data has weights, which the measures of a study cannot use: fit and train do "
            "(jdiff.train, OptimalDenoiser.fit)."
        )
    for name, count, least in (
        ("training", whole.num_train, LEAST_TRAIN),
        ("held-out", len(whole.held_out), least_held_out),
    ):
        if count < least:
            raise ValueError(
                f"data must have at least {least} {name} images for a study; {whole.name} has "
                f"{count}."
            )
    pictures = np.prod(whole.image_shape) > 2  # points of a toy may well fall on each other
    repeated = repeats(whole.held_out, whole.images) if pictures else 0
    if 2 * repeated > len(whole.held_out):
        raise ValueError(
            f"data's held-out images must not be training images: {repeated} of "
            f"{len(whole.held_out)} of {whole.name} are, and say nothing as a control."
        )


def check_names(field: str, values: Any) -> None:
    """Refuses a field of a study that is no tuple, is empty, or names something twice."""
    if not isinstance(values, tuple):
        raise TypeError(f"{field} must be a tuple; got {values!r}.")
    if not values:
        raise ValueError(f"{field} must not be empty.")
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{field} names {repeated[0]} more than once.")


def _check_per_level(spec: Any) -> None:
    """Refuses an option per_level that names no grid."""
    try:
        noise.parse_grid(str(spec))
    except ValueError as error:
        raise ValueError(
            f"per_level must name a grid, GRID:STEPS, as in per_level=vp_cosine:4; got {spec!r} "
            f"({error})"
        ) from None


def _value(text: str) -> Any:
    # "none" is a word, as norm=none is; what is None by default is not given.
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
