"""The measures against the packages that people use for them.

Compared with: `IndexFlatL2` of faiss-cpu and scikit-learn's brute-force `NearestNeighbors` for
exact nearest neighbours; the prdc package for precision, recall, density and coverage; SciPy's
`sqrtm` for the root in a Fréchet distance. A peer is left out, with the reason, where it is not
installed (`pip install "jdiff-jax[bench-peers]"`). The same work: exact answers, the same arrays,
the same k.
"""

import contextlib
import importlib
import importlib.metadata
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jdiff
from benchmarks import child, hardware, record, timing
from benchmarks.images import load
from benchmarks.suite import Case, Skip
from jdiff import metrics

# Neighbours: queries, references, dim, k. prdc: points, dim. Fréchet: points, dim. All measures:
# samples, training images, side. Rounds.
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"nearest": (50, 500, 64, 10), "prdc": (200, 16), "frechet": (100, 32)},
        **{"all": (60, 150, 8), "rounds": 1, "names": ("precision",)},
        "features": ("pca:dim=8",),
    },
    "cpu": {
        **{"nearest": (1_000, 50_000, 3_072, 50), "prdc": (10_000, 256)},
        **{"frechet": (4_096, 2_048), "all": (1_000, 10_000, 28), "rounds": 3, "names": None},
        "features": None,
    },
}
# Peers and SciPy stay on the CPU of an accelerator's host, whose eight minutes are for all suites:
# they have less to do, and the frontier is where all measures are taken.
SIZES["accelerator"] = SIZES["cpu"] | {
    **{"nearest": (1_000, 20_000, 3_072, 50), "prdc": (2_500, 256), "frechet": (4_096, 512)},
    "all": None,
}
SIZES["pod"] = SIZES["cpu"]


def cases(size: str, options: Any) -> list[Case]:
    """Neighbours against each peer, their memory, prdc, Fréchet, all measures."""
    at: Any = SIZES[size]
    rounds = at["rounds"]
    nearest = lambda peer: _nearest(*at["nearest"], peer=peer, rounds=rounds)
    made = [
        Case("nearest, faiss-cpu", lambda: nearest("faiss-cpu IndexFlatL2")),
        Case("nearest, scikit-learn", lambda: nearest("scikit-learn brute")),
        Case("nearest, memory with images", lambda: _memory(*at["nearest"], kind="images")),
        Case("nearest, memory with features", lambda: _memory(*at["nearest"], kind="features")),
        Case("prdc", lambda: _prdc(*at["prdc"], rounds=rounds)),
        Case("frechet", lambda: _frechet(*at["frechet"], rounds=rounds)),
    ]
    if at["all"] is not None:
        asked = (at["names"], at["features"])
        run = lambda: _all(*at["all"], asked=asked, options=options)
        made.append(Case("all measures", run))
    return made


def _points(counts: tuple[int, ...], dim: int) -> list[np.ndarray]:
    """Sets of points of images' kind: a few directions hold most of the variance."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)
    mixing = normal(64, dim) / 8

    def draw(count: int) -> np.ndarray:
        points = np.empty((count, dim), np.float32)
        for start in range(0, count, 4096):  # no temporary array as large as the points
            rows = points[start : start + 4096]
            rows[:] = normal(len(rows), 64) @ mixing + 0.05 * normal(len(rows), dim)
        return points

    return [draw(count) for count in counts]


def _with_cores(work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` with as many threads of BLAS and OpenMP as this process may use cores."""
    try:
        limits: Any = importlib.import_module("threadpoolctl").threadpool_limits
    except ImportError:  # without scikit-learn, which needs it
        return work

    def run() -> Any:
        with limits(record.cores()):
            return work()

    return run


def _nearest(n: int, num: int, dim: int, k: int, peer: str, rounds: int) -> dict[str, Any]:
    queries, references = _points((n, num), dim)
    ours = lambda: metrics.nearest(queries, references, k)
    try:
        search = _with_cores(_PEERS[peer](queries, references, k))
    except ImportError as error:
        raise Skip(str(error)) from None
    found, theirs = ours(), search()
    return {
        **{"queries": n, "references": num, "dim": dim, "k": k},
        # Ties and float32 rounding let peers name another neighbour now and then.
        "same_neighbours": float(np.mean(np.sort(theirs) == np.sort(found.indices))),
        "peer_versions": _version(peer.split()[0]),
        **timing.compare({peer: search, "jdiff": ours}, rounds),
    }


def _version(package: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package)}


def _faiss(queries: np.ndarray, references: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    faiss: Any = importlib.import_module("faiss")

    def search() -> np.ndarray:
        index = faiss.IndexFlatL2(references.shape[1])
        index.add(references)
        return index.search(queries, k)[1]

    return search


def _sklearn(queries: np.ndarray, references: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    def search() -> np.ndarray:
        fitted = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(references)
        return fitted.kneighbors(queries, return_distance=False)

    return search


_PEERS = {"faiss-cpu IndexFlatL2": _faiss, "scikit-learn brute": _sklearn}


def _memory(n: int, num: int, dim: int, k: int, kind: str) -> dict[str, Any]:
    """Peak memory beyond the arrays, the device's copy included, in a process of its own."""
    if jax.default_backend() != "cpu":
        raise Skip("the peak of a search is measured on CPUs, whose memory is the process's")
    if not Path("/proc/self/clear_refs").exists():
        raise Skip("only Linux tells the peak memory of a part of a run")
    arguments = f"{n}, {num}, {dim}, {k}, {kind!r}"
    code = f"from benchmarks.metrics import nearest_once; nearest_once({arguments})"
    (peak,) = child.numbers(code, 1)
    return {
        **{"of": kind, "queries": n, "references": num, "dim": dim},
        **{"peak_mb": peak, "peak_of": "the process, beyond the arrays"},
    }


def nearest_once(n: int, num: int, dim: int, k: int, kind: str) -> None:
    """Prints the MB that a search takes beyond what was there."""
    if kind == "images":
        rng = np.random.default_rng(0)
        draw = lambda count: rng.integers(0, 256, (count, dim, 1, 1), np.uint8)
        queries, references = draw(n), draw(num)
    else:
        queries, references = _points((n, num), dim)
    small = slice(0, max(2 * k, 100))
    metrics.nearest(queries[:2], references[small], k)  # jax's own start
    with hardware.process_memory() as memory:
        metrics.nearest(queries, references, k)
    print(math.nan if memory["peak_mb"] is None else memory["peak_mb"])


def _prdc(n: int, dim: int, rounds: int) -> dict[str, Any]:
    try:
        compute_prdc: Any = importlib.import_module("prdc").compute_prdc
    except ImportError as error:
        raise Skip(str(error)) from None
    generated, train, held_out = _points((n, n, n), dim)

    @_with_cores
    def peer() -> list[dict[str, float]]:
        # A value and its control are two calls of the package, which prints what it does.
        with contextlib.redirect_stdout(io.StringIO()):
            return [compute_prdc(train, x, nearest_k=5) for x in (generated, held_out)]

    ours = lambda: metrics.prdc(generated, train, held_out)
    found, theirs = ours(), peer()[0]
    return {
        **{"points": n, "dim": dim, "k": 5, "about": "value and control, of both"},
        "peer_versions": _version("prdc"),
        "largest_difference": max(abs(found[m].value - theirs[m]) for m in theirs),
        **timing.compare({"prdc package": peer, "jdiff": ours}, rounds),
    }


def _frechet(n: int, dim: int, rounds: int) -> dict[str, Any]:
    from scipy.linalg import sqrtm

    generated, train, held_out = _points((n, n, n), dim)
    ours = lambda: metrics.frechet_distance(generated, train, held_out).value

    def direct(points: np.ndarray, b: np.ndarray) -> float:
        a = np.cov(points.astype(np.float64), rowvar=False)
        root: Any = sqrtm(a @ b)
        mean = points.mean(0, dtype=np.float64) - train.mean(0, dtype=np.float64)
        return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * np.trace(root.real))

    @_with_cores
    def peer() -> list[float]:
        b = np.cov(train.astype(np.float64), rowvar=False)
        return [direct(points, b) for points in (generated, held_out)]

    value, theirs = ours(), peer()[0]  # both are warm now
    ways = {"scipy sqrtm of the product": peer, "jdiff": ours}
    timed = {name: lambda work=work: timing.seconds(work) for name, work in ways.items()}
    return {
        **{"points": n, "dim": dim, "relative_difference": abs(value / theirs - 1)},
        "about": "jdiff: value, control, intervals by parts; peer: value and control",
        "peer_versions": _version("scipy"),
        **timing.turns(timed, rounds),
    }


def _all(n: int, num: int, side: int, asked: tuple, options: Any) -> dict[str, Any]:
    """Every measure of the linear denoiser, compilation and the classifier's training included.

    One run. A network's evaluations would come on top, which `sampling` times; the measures of
    samples, most of the work, are those of any denoiser.
    """
    if options.data is not None:
        whole = load(options.data, options.data_dir)
    else:
        whole: Any = jdiff.data.load("digits")
        zoom = max(1, -(-side // 8))
        grow = lambda x, m: np.resize(x, (m, *x.shape[1:])).repeat(zoom, 1).repeat(zoom, 2)
        noisy = lambda x: np.clip(
            x.astype(int) + np.random.default_rng(len(x)).integers(-20, 21, x.shape), 0, 255
        ).astype(np.uint8)
        crop = lambda x, m: noisy(grow(x, m)[:, :side, :side])
        whole = jdiff.data.from_arrays(
            crop(whole.images, num),
            np.resize(whole.labels, num),
            held_out=crop(whole.held_out, n),
            held_out_labels=np.resize(whole.held_out_labels, n),
            name=f"digits enlarged to {side} x {side}, with noise",
        )
    data = whole.subset(min(num, whole.num_train), jax.random.key(0))
    denoiser = jdiff.LinearDenoiser.fit(data.images)
    samples = np.asarray(jdiff.sample(denoiser, jax.random.key(1), n))
    started = time.perf_counter()
    names, features = asked
    found = jdiff.study.evaluate(
        samples, data, denoiser, names=names, features=features, progress=False
    )
    return {
        **{"data": data.name, "samples": n, "num_train": data.num_train},
        **{"image_shape": list(data.image_shape), "measures": len(found.measures)},
        **{"not_taken": found.record["skipped"], "all_seconds": time.perf_counter() - started},
        "seconds_of_each": found.record["seconds"],
    }
