"""What the page of `jdiff evaluate` is made from: one record, evaluation.json, and its arrays.

The record holds measures, controls, intervals and the verdict; arrays are what its figures draw.
Both come ready from the study: nothing here is computed from them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jdiff import _check
from jdiff.report import formats, glossary
from jdiff.report.rows import check

# Each group of arrays: name -> shape, a letter the same length within a group, but H W C the same
# in all groups. A group is there whole or not at all. n samples, m held-out images, k, l, q pairs
# and mosaics, R x S tiles, B radii; r, s, t images to look at.
ARRAYS: dict[str, dict[str, str]] = {
    "pictures": {"samples": "r H W C", "training": "s H W C", "held_out": "t H W C"},
    "ratios": {"ratio": "n", "held_out_ratio": "m"},
    "copied": {"copied": "k H W C", "copied_source": "k H W C", "copied_ratio": "k"},
    "novel": {"novel": "l H W C", "novel_nearest": "l H W C", "novel_rms": "l"},
    "mosaics": {
        **{"mosaic_samples": "q H W C", "mosaic_images": "q H W C"},
        **{"mosaic_sources": "q R S", "mosaic_side": ""},
    },
    "spectra": {
        **{"frequency": "B", "spectrum_generated": "B"},
        **{"spectrum_train": "B", "spectrum_held_out": "B"},
    },
}
EXPLAINED = "explained_by"
FIELDS = ("value", "interval", "control", "control_interval")


@dataclass(frozen=True, eq=False)
class Finding:
    """One measure of the record.

    Attributes:
      key: under which the record holds it.
      entry: its "name", "value", "interval", "control", "control_interval", "n", "features" and
        "constants". Whatever is missing, None or NaN is printed as a dash.
      differs: the constants that tell it from others of the same name, in words.

    Example:
      >>> gap = Finding("psnr_gap", {"value": [0.5, None], "constants": {"sigmas": [1.0, 0.1]}})
      >>> gap.kind, gap.levels, gap.numbers("value").tolist()
      ('psnr_gap', 2, [0.5, nan])
    """

    key: str
    entry: Mapping[str, Any]
    differs: str = ""

    @property
    def name(self) -> str:
        """The measure's own name, without its feature space."""
        return self.entry.get("name") or self.key.split(" (")[0]

    @property
    def kind(self) -> str:
        """What the glossary knows it by: the first word of its name."""
        # The numbers of an agreement have names of their own, such as pearson_r.
        return EXPLAINED if self.explains else self.name.split()[0]

    @property
    def explains(self) -> tuple[str, str] | None:
        """The number and the reference of an explained_by measure; None for any other.

        Example:
          >>> Finding("explained_by optimal pearson_r", {"name": "pearson_r"}).explains
          ('pearson_r', 'optimal')
        """
        words = next((text.split() for text in (self.name, self.key) if EXPLAINED in text), [])
        numbers = [word for word in words if word in glossary.STATISTICS]
        others = [word for word in words if word not in (EXPLAINED, *numbers)]
        reference = self.constants.get("reference") or " ".join(others)
        return (numbers[0], reference) if numbers and reference else None

    @property
    def features(self) -> str:
        """The space in which its distances were taken."""
        return self.entry.get("features") or ""

    @property
    def constants(self) -> Mapping[str, Any]:
        """What the number depends on."""
        return self.entry.get("constants") or {}

    @property
    def levels(self) -> int:
        """How many noise levels it has a value for; 0 if it is one number."""
        return len(self.constants["sigmas"]) if _is_list(self.entry.get("value")) else 0

    @property
    def sigmas(self) -> np.ndarray:
        """float64 [T], the noise levels in model units."""
        return np.asarray(self.constants["sigmas"], np.float64)

    @property
    def known(self) -> bool:
        """Whether it has a value, at one level at least."""
        return bool(np.isfinite(self.numbers("value")).any())

    def numbers(self, field: str) -> np.ndarray:
        """A field as float64, NaN for what is missing: [] or [T], an interval [2] or [2, T].

        Args:
          field: one of `FIELDS`.
        """
        shape = ((2,) if field.endswith("interval") else ()) + ((self.levels,) * bool(self.levels))
        found = self.entry.get(field)
        if found is None:
            return np.full(shape, np.nan)
        return np.array(found, np.float64).reshape(shape)

    @property
    def title(self) -> str:
        """Its name in words, with what tells it from others of the same name.

        Example:
          >>> Finding("frechet_distance", {"value": 0.1, "features": "pixels"}).title
          'pixel Fréchet distance'
          >>> Finding("explained_by optimal pearson_r", {"value": 0.9}).title
          'Pearson r, explained by optimal'
        """
        words = glossary.measure(self.kind).title
        if self.kind == "frechet_distance" and self.features == "pixels":
            words = f"pixel {words}"
        if self.explains:
            number, reference = self.explains
            words = f"{glossary.measure(number).title}, {words} {reference}"
        return f"{words}, {self.differs}" if self.differs else words

    def form(self, value: float | None) -> str:
        """Prints one of its numbers."""
        return glossary.measure(self.explains[0] if self.explains else self.kind).form(value)


@dataclass(frozen=True, eq=False)
class Findings:
    """All that `jdiff evaluate` found of one set of samples.

    Attributes:
      record: the contents of evaluation.json: "schema", "kind" ("evaluation"), "title", "samples",
        "data", "measures" (see `Finding`), "verdict" ("word" and "reason", or None), "skipped"
        (name: reason), "command", "device", "versions", "seconds".
      arrays: the contents of evaluation.npz, what figures draw, as `ARRAYS` lists them. Images are
        uint8 or model units, clipped only where they are drawn.

    Raises:
      TypeError: if record or arrays are no mappings, or sources no whole numbers.
      ValueError: on another schema or kind, no title, measures whose lists do not fit their noise
        levels, half a group of arrays, or arrays that do not fit together.
    """

    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def __post_init__(self):
        for name, given in (("record", self.record), ("arrays", self.arrays)):
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} must be a mapping by name; got {type(given).__name__}.")
        check(self.record)
        _check.choice("record['kind']", self.record.get("kind"), ("evaluation",))
        if not isinstance(self.title, str) or not self.title:
            raise ValueError(
                f"record['title'] must be a name that is not empty; got {self.title!r}."
            )
        if not isinstance(self.record.get("measures"), Mapping):
            got = type(self.record.get("measures")).__name__
            raise ValueError(f"record['measures'] must hold measures by name; got {got}.")
        for measure in self.measures:
            _check_levels(measure)
        self._check_shapes()
        self._check_values()

    @property
    def title(self) -> str:
        """What was judged."""
        return self.record.get("title") or ""

    @functools.cached_property
    def measures(self) -> list[Finding]:
        """All measures, in the record's order, told apart by what differs."""
        plain = [Finding(key, entry or {}) for key, entry in self.record["measures"].items()]
        alike = lambda a: [b for b in plain if (b.title, b.features) == (a.title, a.features)]
        return [Finding(a.key, a.entry, _differs(a, alike(a))) for a in plain]

    def of(self, *kinds: str) -> list[Finding]:
        """The measures of these kinds, in the record's order."""
        return [measure for measure in self.measures if measure.kind in kinds]

    def measure(self, key: str) -> Finding:
        """The measure of this key, empty if it was not taken."""
        return Finding(key, self.record["measures"].get(key) or {})

    @property
    def verdict(self) -> Mapping[str, Any]:
        """The verdict's "word" and "reason", empty if there is none."""
        return self.record.get("verdict") or {}

    def number(self, *path: str) -> Any:
        """Returns one entry of the record, such as ("data", "num_train"); None if it is absent."""
        value: Any = self.record
        for key in path:
            value = (value or {}).get(key)
        return value

    def has(self, group: str) -> bool:
        """Whether it has this group of `ARRAYS`."""
        return any(self.arrays.get(name) is not None for name in ARRAYS[group])

    def array(self, name: str) -> np.ndarray:
        """Returns one of its arrays.

        Raises:
          ValueError: if it has none of that name.
        """
        if self.arrays.get(name) is None:
            raise ValueError(f"arrays have no {name!r} to draw.")
        return np.asarray(self.arrays[name])

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(H, W, C) as the record has it; None if it does not say."""
        shape = self.number("data", "image_shape")
        return None if formats.missing(shape) else tuple(shape)

    @property
    def toy(self) -> bool:
        """Whether what was generated are points, H = W = 1, and no pictures."""
        images = (name for group in ARRAYS.values() for name, form in group.items() if "H" in form)
        drawn = (self.arrays[name] for name in images if self.arrays.get(name) is not None)
        shape = self.image_shape or next((np.shape(array)[1:] for array in drawn), ())
        return shape[:2] == (1, 1)

    def _check_shapes(self) -> None:
        """Holds every array's shape against `ARRAYS`."""
        shape = self.image_shape
        images = {}
        if shape is not None:
            h, w, c = _check.image_shape("record['data']['image_shape']", shape)
            images = {"H": h, "W": w, "C": c}
        for group, forms in ARRAYS.items():
            if not self.has(group):
                continue
            absent = [name for name in forms if self.arrays.get(name) is None]
            if absent:
                there = [name for name in forms if name not in absent]
                raise ValueError(
                    f"arrays have {', '.join(map(repr, there))} but lack "
                    f"{', '.join(map(repr, absent))}."
                )
            lengths = dict(images)
            for name, form in forms.items():
                got, letters = np.shape(self.array(name)), form.split()
                fits = len(got) == len(letters) and all(
                    lengths.setdefault(letter, size) == size
                    for letter, size in zip(letters, got, strict=True)
                )
                if not fits or 0 in got:
                    known = "".join(f", {k} = {v}" for k, v in lengths.items() if k in letters)
                    raise ValueError(
                        f"arrays[{name!r}] must have shape [{', '.join(letters)}], none of them 0"
                        f"{known}; got {list(got)}."
                    )
            images |= {letter: lengths[letter] for letter in "HWC" if letter in lengths}

    def _check_values(self) -> None:
        """Refuses numbers that cannot be drawn."""
        for group, forms in ARRAYS.items():
            for name in forms if self.has(group) else ():
                array = self.array(name)
                if array.dtype.kind not in "fiu":
                    raise TypeError(f"arrays[{name!r}] must be numbers; got dtype {array.dtype}.")
                if "H" not in forms[name] and not np.all(np.isfinite(array)):
                    raise ValueError(f"arrays[{name!r}] must be finite.")
        for name in ("ratio", "held_out_ratio", "copied_ratio"):
            if self.arrays.get(name) is not None:
                _check_range(name, self.array(name), 0, 1)
        if self.has("mosaics"):
            self._check_mosaics()

    def _check_mosaics(self) -> None:
        for name in ("mosaic_sources", "mosaic_side"):
            dtype = self.array(name).dtype
            if dtype.kind not in "iu":
                raise TypeError(f"arrays[{name!r}] must be whole numbers; got dtype {dtype}.")
        _check_range("mosaic_sources", self.array("mosaic_sources"), -1, np.inf)
        side, (height, width) = self.mosaic_side, self.array("mosaic_samples").shape[1:3]
        _check.integer("arrays['mosaic_side']", side, maximum=min(height, width))
        wanted, got = (
            (-(-height // side), -(-width // side)),
            self.array("mosaic_sources").shape[1:],
        )
        if got != wanted:
            raise ValueError(
                f"arrays['mosaic_sources'] must have {wanted[0]} x {wanted[1]} tiles: {height} x "
                f"{width} pixels in tiles of side {side}; got {got[0]} x {got[1]}."
            )

    @property
    def mosaic_side(self) -> int:
        """A tile's side in pixels."""
        return int(self.array("mosaic_side"))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _check_levels(measure: Finding) -> None:
    """A list of values must have one entry a noise level, its intervals two such lists."""
    name = f"record['measures'][{measure.key!r}]"
    value: Any = measure.entry.get("value")
    sigmas: Any = measure.constants.get("sigmas")
    if _is_list(value):
        if not (_is_list(sigmas) and len(sigmas) == len(value) > 0):
            got = len(sigmas) if _is_list(sigmas) else sigmas
            raise ValueError(
                f"{name} has a list of {len(value)} values, so constants['sigmas'] must be as many "
                f"noise levels; got {got}."
            )
        if not np.all(np.isfinite(measure.sigmas) & (measure.sigmas > 0)):
            raise ValueError(f"{name} must have positive noise levels; got {list(sigmas)}.")
    for field in FIELDS:
        try:
            measure.numbers(field)
        except (ValueError, TypeError):
            wanted = "two numbers" if field.endswith("interval") else "one number"
            wanted += f" a level, T = {measure.levels}" if measure.levels else ""
            raise ValueError(
                f"{name}[{field!r}] must be {wanted}; got {measure.entry[field]!r}."
            ) from None


def _check_range(name: str, array: np.ndarray, low: float, high: float) -> None:
    if array.min() < low or array.max() > high:
        raise ValueError(
            f"arrays[{name!r}] must lie in [{low}, {high}]; got {array.min()} .. {array.max()}."
        )


def _differs(measure: Finding, alike: Sequence[Finding]) -> str:
    """As few constants as tell a measure from others of the same name, in words."""
    others, told = [other for other in alike if other is not measure], []
    for name, value in measure.constants.items():
        same = [other for other in others if other.constants.get(name) == value]
        if not _is_list(value) and len(same) < len(others):
            told.append(f"{name} = {formats.plain(value)}")
            others = same
    return ", ".join(told)
