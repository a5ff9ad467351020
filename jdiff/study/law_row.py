"""One case of the study `laws`: fit, sample, predict, check, and try what must be rejected."""

import dataclasses
import functools
import time
import zlib
from typing import Any

import jax
import numpy as np

from jdiff import _files, _pixels, metrics, noise, sampling, theory, training
from jdiff.data import ImageData
from jdiff.study.config import Architecture, Budget
from jdiff.study.law_cases import CHECKED, Case, Sets, cases
from jdiff.theory.checks import LEAST_SAMPLES, finite_rows, significant

_SHOWN = 16
# Odd, so that no point of symmetric data lies on an edge, where rounding decides on the bin; many
# for spikes, fewer where a density is smooth.
_BINS = {"star": 61, "two_points": 121, "moments": 61}
# The chance that a study of right laws shows one of them as rejected, whatever sections it has.
_ALPHA = 0.01
# Folded into the study's seed.
_SAMPLES, _LAW, _TRAINING, _RANK, SUBSET = 0, 1, 3, 4, 100


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every case is done with; the fields are those of `LawStudy`."""

    num_samples: int
    sigmas: str
    solver: str
    seed: int
    budget: Budget

    @functools.cached_property
    def grid(self) -> np.ndarray:
        """The grid [T + 1]."""
        return noise.parse_grid(self.sigmas)

    def key(self, purpose: int) -> jax.Array:
        """The study's key for a purpose."""
        return jax.random.fold_in(jax.random.key(self.seed, impl="threefry2x32"), purpose)


class Bench:
    """Fits, samples and laws of a study, each made once.

    Attributes:
      alpha: the false-alarm rate of one law's check.
    """

    def __init__(self, settings: Settings, sets: Sets):
        """Nothing is made before it is asked for."""
        self.settings, self.sets = settings, sets
        images = sets.images
        planned = cases(images.image_shape, images.num_train)
        self.alpha = _ALPHA / sum(case.section in CHECKED for case in planned)
        self._fits: dict[tuple[str, str], tuple[Any, float]] = {}
        self._samples: dict[tuple[str, str, str], tuple[np.ndarray, float]] = {}
        self._last_points: dict[tuple[str, str], np.ndarray] = {}
        self._laws: dict[tuple[str, str], Any] = {}
        self._held_out: dict[str, metrics.NearestTwo] = {}

    def denoiser(self, spec: str, data: str) -> tuple[Any, float]:
        """An architecture fitted or trained on a set, and the seconds that took."""
        if (spec, data) not in self._fits:
            started = time.perf_counter()
            made = self._make(Architecture.parse(spec), self.sets[data])
            jax.block_until_ready(jax.tree.leaves(made))
            self._fits[spec, data] = made, time.perf_counter() - started
        return self._fits[spec, data]

    def _make(self, architecture: Architecture, data: ImageData) -> Any:
        if architecture.closed_form:
            return architecture.fit(data, self.settings.grid, self.settings.seed)
        steps = max(1, round(self.settings.budget.amount))
        config = training.TrainConfig(
            steps=steps, batch_size=128, learning_rate=2e-3, warmup=min(100, steps // 10)
        )
        network = architecture.network(data.image_shape)
        key = self.settings.key(_TRAINING)
        return training.train(network, data, config, key=key, progress=False).denoiser

    def samples(self, spec: str, data: str, section: str) -> tuple[np.ndarray, float]:
        """Its samples, and the seconds that took.

        In a section that checks laws each case starts from noise of its own, so that the checks are
        independent; in the sweep all start from one, so that a knob alone makes the difference.
        """
        if (spec, data, section) not in self._samples:
            denoiser, _ = self.denoiser(spec, data)
            name = section if section == "sweep" else f"{section} {spec} {data}"
            key = jax.random.fold_in(self.settings.key(_SAMPLES), zlib.crc32(name.encode()))
            started = time.perf_counter()
            drawn = sampling.sample(
                denoiser,
                key,
                self.count(data),
                sigmas=self.settings.grid,
                solver=self.settings.solver,
            )
            seconds = time.perf_counter() - started
            self._samples[spec, data, section] = np.asarray(drawn), seconds
        return self._samples[spec, data, section]

    def last_points(self, spec: str, data: str) -> tuple[np.ndarray, float]:
        """Where the last step of a few samples starts, and its level."""
        if (spec, data) not in self._last_points:
            denoiser, _ = self.denoiser(spec, data)
            grid, solver = self.settings.grid, self.settings.solver
            key = self.settings.key(_RANK)
            start = float(grid[0]) * jax.random.normal(key, (8, *denoiser.image_shape))
            walk = jax.random.fold_in(key, 1)
            _, way = sampling.solve(denoiser, start, grid, solver=solver, key=walk, record=("y",))
            self._last_points[spec, data] = np.asarray(way["y"][-1])
        return self._last_points[spec, data], float(self.settings.grid[-2])

    def count(self, data: str) -> int:
        """Points cost nothing, and their histograms want many."""
        toy = self.sets[data].image_shape[:2] == (1, 1)
        return self.settings.num_samples * (4 if toy else 1)

    def law(self, spec: str, data: str) -> Any:
        """Its law on the study's grid.

        Raises:
          ValueError: if it has none, saying why.
        """
        if (spec, data) not in self._laws:
            denoiser, _ = self.denoiser(spec, data)
            made = theory.law(denoiser, self.settings.grid, self.settings.solver)
            self._laws[spec, data] = made
        return self._laws[spec, data]

    def held_out_neighbors(self, data: str) -> metrics.NearestTwo:
        """The held-out points' nearest training points, as features."""
        if data not in self._held_out:
            held_out, train = (
                _features(x) for x in (self.sets[data].held_out, self.sets[data].images)
            )
            self._held_out[data] = metrics.nearest_two(held_out, train)
        return self._held_out[data]


def _features(images: np.ndarray) -> np.ndarray:
    """Images or points on [0, 1] as rows: toys leave the range that images must keep to."""
    return _pixels.to_unit(images).reshape(len(images), -1)


def make(bench: Bench, case: Case) -> tuple[dict, dict[str, np.ndarray]]:
    """Does a case's work.

    Returns:
      The rest of its record, and the arrays that its figures draw.
    """
    data = bench.sets[case.data]
    denoiser, fit_seconds = bench.denoiser(case.spec, case.data)
    samples, sample_seconds = bench.samples(case.spec, case.data, case.section)
    started = time.perf_counter()
    law, why_not = None, None
    try:
        law = bench.law(case.spec, case.data)
    except ValueError as error:
        # The message goes on with the classes that do have one: of no use on a page.
        why_not = str(error).partition(" Those that have")[0].removeprefix("denoiser ")
    record: dict[str, Any] = {
        "num_samples": len(samples),
        "num_train": data.num_train,
        "law": None if law is None else _KINDS[type(law)],
        "why_no_law": why_not,
        "check": None,
        "twins": [],
        "measures": _measures(bench, case, samples),
    }
    if law is not None and case.section != "sweep":
        judge = law
        if case.section == "moments" and case.data == "gauss_hermite:7":
            judge = bench.law(case.spec, "gauss_hermite:2")  # another target's law, equal moments
            record["law_of"] = "A"
        check = functools.partial(_check, bench, case)
        record["check"] = _as_json(check(judge, samples))
        record["twins"] = [
            {"about": about, "check": _as_json(check(wrong_law, wrong))}
            for about, wrong_law, wrong in _twins(bench, case, law)
        ]
    if case.spec.startswith("bottleneck_mlp"):
        record |= _dimension(bench, case, denoiser)
    law_seconds = time.perf_counter() - started
    record["seconds"] = {"fit": fit_seconds, "sample": sample_seconds, "law": law_seconds}
    arrays = _ARRAYS[case.section](bench, case, denoiser, samples, law)
    if isinstance(law, theory.PushForwardLaw):
        inside, constants = law.inside(samples), {"bound": law.bound}
        record["measures"]["escaped"] = {
            "value": float(1 - inside.mean()),
            "control": law.escaped,
            "n": len(samples),
            "constants": constants,
        }
        record["measures"]["deviation"] = {
            "value": float(samples[inside].std(dtype=np.float64)),
            "control": float(np.sqrt(law.covariance[0, 0])),
            "n": int(inside.sum()),
            "constants": constants,
        }
    return _files.plain(record), arrays


_KINDS = {
    theory.GaussianLaw: "gaussian",
    theory.PushForwardLaw: "push-forward",
    theory.AtomsLaw: "atoms",
}


def _check(bench: Bench, case: Case, law: Any, samples: Any) -> theory.LawCheck:
    data = bench.sets[case.data]
    images = {"train": data.images, "held_out": data.held_out} if case.section == "gaussian" else {}
    return law.check(samples, alpha=bench.alpha, **images)


def _dimension(bench: Bench, case: Case, denoiser: Any) -> dict[str, Any]:
    """A learned bottleneck's law is a bound: its samples fill no more dimensions than its code."""
    y, last, code = *bench.last_points(case.spec, case.data), denoiser.module.code_dim
    round_it = dataclasses.replace(denoiser, preconditioning="edm")
    wrong = theory.check_rank(round_it, y, last, code)
    about = "the same network with the noisy image led round its code (edm)"
    return {
        "law": "dimension",
        "check": _as_json(theory.check_rank(denoiser, y, last, code)),
        "twins": [{"about": about, "check": _as_json(wrong)}],
    }


def _as_json(check: theory.LawCheck) -> dict:
    return {**dataclasses.asdict(check), "passed": check.passed}


def _twins(bench: Bench, case: Case, law: Any) -> list[tuple[str, Any, Any]]:
    """What must be rejected: (in words, the law, samples that are not its own)."""
    data = bench.sets[case.data]
    samples = lambda spec: bench.samples(spec, case.data, case.section)[0]
    if case.section == "star":
        return [("samples of the optimal denoiser", law, samples("optimal"))]
    if case.section == "two_points":
        other = 3 if case.knob == 1 else 1
        wrong = samples(f"polynomial:degree={other}")
        return [(f"samples of degree {other}", law, wrong)]
    if case.section == "moments":
        if case.data != "third_moment":
            return []
        first = bench.law(case.spec, "gauss_hermite:2")
        return [("these samples, held against the law of A", first, samples(case.spec))]
    if case.section in ("atoms", "plane"):
        if isinstance(law, theory.AtomsLaw):
            return [("samples of the linear denoiser", law, samples("linear"))]
        return [("the training set itself", law, data.images)]
    others = [c for c in _GAUSSIAN_TWINS if c != case.spec.partition(":")[0]]
    wrong = samples(others[0])
    twins = [(f"samples of {others[0]}", law, wrong)]
    if data.num_train >= LEAST_SAMPLES:
        itself = _pixels.to_model(data.images[: len(wrong)])
        twins.insert(0, ("the training set itself", law, itself))
    return twins


_GAUSSIAN_TWINS = ("equivariant_linear", "linear")


def _measures(bench: Bench, case: Case, samples: np.ndarray) -> dict[str, Any]:
    """Copies, and the distance to the linear law, of the samples that stayed within bounds."""
    data = bench.sets[case.data]
    linear = bench.law("linear", case.data)
    x, finite = finite_rows("samples", samples, data.image_shape)
    if not significant(linear.eigenvalues).any():
        return {}  # all images are the same: nothing to be near or far from
    deviation = float(np.sqrt(np.sum(linear.eigenvalues)))
    bound = 10 * deviation
    with np.errstate(invalid="ignore", over="ignore"):
        away = np.linalg.norm(x - linear.mean.reshape(1, -1), axis=1)
    inside = finite & (away <= bound)
    measures: dict[str, Any] = {}
    if inside.sum() < 2 or data.num_train < 2:
        return measures
    kept = samples[inside]
    own = linear.sample(bench.settings.key(_LAW), len(kept))
    measures["law_distance"] = {
        "value": linear.distance(kept),
        "interval": None,
        "control": linear.distance(own),
        "n": len(kept),
        "constants": {"left_out": int((~inside).sum()), "bound": bound},
    }
    if x.shape[1] == 1:  # among points on a line a third of all that lies between is "near"
        return measures
    copies = functools.partial(
        metrics.memorized_fraction,
        train=_features(data.images),
        held_out=_features(data.held_out),
        held_out_neighbors=bench.held_out_neighbors(case.data),
    )
    measures["memorized_fraction"] = copies(_features(kept)).to_dict()
    if case.section == "sweep":  # few points: draws of the linear law lie near one by chance
        measures["memorized_fraction_of_linear_law"] = copies(_features(np.asarray(own))).to_dict()
    return measures


def _line(bench: Bench, case: Case, denoiser: Any, samples: Any, law: Any) -> dict:
    """One coordinate: a histogram, the law's density, the points."""
    data = bench.sets[case.data]
    points = data.images.reshape(-1)
    reach = 1.6 * np.abs(points).max() + (1.5 if case.section == "star" else 0.4)
    edges = np.linspace(-reach, reach, _BINS[case.section] + 1)
    arrays = {
        "samples": samples.reshape(-1).astype(np.float64),
        "points": points,
        "weights": np.full(len(points), 1 / len(points)) if data.weights is None else data.weights,
        "edges": edges,
        "density": law.density(edges) * (1 - law.escaped),
    }
    if case.section == "star":
        from scipy import stats

        arrays["reference"] = np.diff(stats.norm.cdf(edges)) / np.diff(edges)
    if case.section in ("star", "two_points"):
        arrays["optimal_samples"] = bench.samples("optimal", case.data, case.section)[0].reshape(-1)
    return arrays


def _spectrum(bench: Bench, case: Case, denoiser: Any, samples: Any, law: Any) -> dict:
    """Variances along the predicted axes, and their 95 % interval."""
    from scipy import stats

    kept = significant(law.eigenvalues)
    measured = np.var(law.coordinates(samples)[:, kept], axis=0, ddof=1)
    predicted, degrees = law.eigenvalues[kept], len(samples) - 1
    low, high = (predicted * stats.chi2(degrees).ppf(p) / degrees for p in (0.025, 0.975))
    return {
        "samples": samples[:_SHOWN],
        "law_samples": np.asarray(law.sample(bench.settings.key(_LAW), _SHOWN)),
        "predicted": predicted,
        "measured": measured,
        "low": low,
        "high": high,
    }


def _atoms(bench: Bench, case: Case, denoiser: Any, samples: Any, law: Any) -> dict:
    shown = samples[:_SHOWN]
    flat = law.atoms.reshape(len(law.atoms), -1)
    index = metrics.nearest(shown.reshape(len(shown), -1), flat, 1).indices[:, 0]
    return {"samples": shown, "atoms": law.atoms[index]}


def _plane(bench: Bench, case: Case, denoiser: Any, samples: Any, law: Any) -> dict:
    data = bench.sets[case.data]
    arrays = {"training": data.images.reshape(-1, 2), "samples": samples.reshape(-1, 2)}
    if case.spec.startswith("bottleneck:"):
        arrays["axis"] = np.asarray(denoiser.basis)[:, 0]
        arrays["mean"] = np.asarray(denoiser.mean)
    if case.spec.startswith("bottleneck") and "code=posterior" not in case.spec:
        arrays["curve"] = _decoder_range(denoiser, samples, float(bench.settings.grid[-2]))
    return arrays


def _decoder_range(denoiser: Any, samples: np.ndarray, last: float) -> np.ndarray:
    """Where the last step can end: D at the last level, from a grid of starts."""
    flat = samples.reshape(len(samples), -1)
    flat = flat[np.isfinite(flat).all(1)]
    lo, hi = flat.min(0) - 0.2, flat.max(0) + 0.2
    side = np.linspace(0, 1, 60, dtype=np.float32)
    starts = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2) * (hi - lo) + lo
    call = jax.jit(lambda d, y, s: d(y, s))
    ends = call(denoiser, starts.reshape(-1, *denoiser.image_shape), np.float32(last))
    ends = np.asarray(ends).reshape(-1, 2)
    return ends[np.argsort(ends[:, 0])]


def _without_law(bench: Bench, case: Case, denoiser: Any, samples: Any, law: Any) -> dict:
    arrays = {"samples": samples[:_SHOWN]}
    if case.spec.startswith("bottleneck_mlp"):
        spectrum = theory.jacobian_spectrum(denoiser, *bench.last_points(case.spec, case.data))
        arrays["singular_values"] = spectrum.mean(0)
    return arrays


_ARRAYS = {
    "star": _line,
    "two_points": _line,
    "moments": _line,
    "gaussian": _spectrum,
    "plane": _plane,
    "atoms": _atoms,
    "without_law": _without_law,
    "sweep": lambda *_: {},
}
