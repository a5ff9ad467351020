"""The measures against the packages that people use for them.

Compared with: `IndexFlatL2` of faiss-cpu and scikit-learn's brute-force `NearestNeighbors` for
exact nearest neighbours; the prdc package for precision, recall, density and coverage; SciPy's
`sqrtm` for the root in a Fréchet distance. A peer is left out, with the reason, where it is not
installed (`pip install "jdiff-jax[bench-peers]"`). The same work: exact answers, the same arrays,
the same k.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jdiff
from benchmarks import timing
from jdiff import metrics

# Neighbours: queries, references, dim, k. prdc: points, dim. Fréchet: points, dim. All measures:
# samples, training images, side. Rounds.
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        **{"nearest": (50, 500, 64, 10), "prdc": (200, 16), "frechet": (100, 32)},
        **{"all": (100, 300, 8), "rounds": 1},
    },
    "cpu": {
        **{"nearest": (1_000, 50_000, 3_072, 50), "prdc": (10_000, 256)},
        **{"frechet": (4_096, 2_048), "all": (1_000, 10_000, 28), "rounds": 3},
    },
    "accelerator": {
        **{"nearest": (1_000, 50_000, 3_072, 50), "prdc": (10_000, 256)},
        **{"frechet": (4_096, 2_048), "all": (1_000, 10_000, 28), "rounds": 3},
    },
}


def run(size: str, options: Any) -> list[dict[str, Any]]:
    """Rows: neighbours against each peer, their memory, prdc, Fréchet, all measures."""
    sizes, rounds = SIZES[size], SIZES[size]["rounds"]
    rows = _nearest(*sizes["nearest"], rounds)
    rows += [_memory(*sizes["nearest"], kind) for kind in ("images", "features")]
    rows.append(_prdc(*sizes["prdc"], rounds))
    rows.append(_frechet(*sizes["frechet"], rounds))
    rows.append(_all(*sizes["all"], options))
    return rows


def _points(n: int, num: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Queries and references of images' kind: a few directions hold most of the variance."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)
    mixing = normal(64, dim) / 8

    def draw(count: int) -> np.ndarray:
        points = np.empty((count, dim), np.float32)
        for start in range(0, count, 4096):  # no temporary array as large as the points
            rows = points[start : start + 4096]
            rows[:] = normal(len(rows), 64) @ mixing + 0.05 * normal(len(rows), dim)
        return points

    return draw(n), draw(num)


def _nearest(n: int, num: int, dim: int, k: int, rounds: int) -> list[dict[str, Any]]:
    queries, references = _points(n, num, dim)
    ours: Callable[[], Any] = lambda: metrics.nearest(queries, references, k)
    found = ours()

    def faiss() -> Callable[[], Any]:
        import faiss  # pyright: ignore[reportMissingImports]

        def search() -> np.ndarray:
            index = faiss.IndexFlatL2(dim)
            index.add(references)
            return index.search(queries, k)[1]

        return search

    def sklearn() -> Callable[[], Any]:
        from sklearn.neighbors import NearestNeighbors

        def search() -> np.ndarray:
            fitted = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(references)
            return fitted.kneighbors(queries, return_distance=False)

        return search

    rows = []
    for peer, make in (("faiss-cpu IndexFlatL2", faiss), ("scikit-learn brute", sklearn)):
        row: dict[str, Any] = {
            **{"name": "nearest", "peer": peer, "queries": n, "references": num, "dim": dim},
            "k": k,
        }
        try:
            search = make()
        except ImportError as error:
            rows.append({**row, "skipped": str(error)})
            continue
        # Ties and float32 rounding let peers name another neighbour now and then.
        row["same_neighbours"] = float(np.mean(np.sort(search()) == np.sort(found.indices)))
        rows.append({**row, "ratio of": "jdiff / peer", **timing.compare(ours, search, rounds)})
    return rows


def _memory(n: int, num: int, dim: int, k: int, kind: str) -> dict[str, Any]:
    """Peak memory beyond the arrays, the device's copy included, in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        return {"name": "nearest_memory", "skipped": "only Linux tells the peak of a part of a run"}
    arguments = f"{n}, {num}, {dim}, {k}, {kind!r}"
    code = f"from benchmarks.metrics import nearest_once; nearest_once({arguments})"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    before, peak = map(float, printed[-2:])
    return {"name": "nearest_memory", "of": kind, "queries": n, "references": num, "dim": dim,
            "peak_mb_beyond_arrays": peak - before}  # fmt: skip


def nearest_once(n: int, num: int, dim: int, k: int, kind: str) -> None:
    """Prints the process's memory in MB before a search, and its peak after."""
    if kind == "images":
        rng = np.random.default_rng(0)
        draw = lambda count: rng.integers(0, 256, (count, dim, 1, 1), np.uint8)
        queries, references = draw(n), draw(num)
    else:
        queries, references = _points(n, num, dim)
    small = slice(0, max(2 * k, 100))
    metrics.nearest(queries[:2], references[small], k)  # jax's own start
    before = _resident("VmRSS")
    # Linux forgets the peak that making the arrays had.
    Path("/proc/self/clear_refs").write_text("5")
    metrics.nearest(queries, references, k)
    print(before, _resident("VmHWM"))


def _resident(field: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _prdc(n: int, dim: int, rounds: int) -> dict[str, Any]:
    generated, train = _points(n, n, dim)
    held_out = _points(n + 1, 1, dim)[0][:n]
    row: dict[str, Any] = {"name": "prdc", "peer": "prdc package", "points": n, "dim": dim, "k": 5}
    # A value and its control are two calls of the package.
    ours = lambda: metrics.prdc(generated, train, held_out)
    try:
        from prdc import compute_prdc  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return {**row, "skipped": str(error), "jdiff_seconds": timing.seconds(ours)}

    def peer() -> list[dict[str, float]]:
        return [compute_prdc(train, x, nearest_k=5) for x in (generated, held_out)]

    found, theirs = ours(), peer()[0]
    row["largest_difference"] = max(abs(found[m].value - theirs[m]) for m in theirs)
    return {**row, "ratio of": "jdiff / peer, value and control of both",
            **timing.compare(ours, peer, rounds)}  # fmt: skip


def _frechet(n: int, dim: int, rounds: int) -> dict[str, Any]:
    from scipy.linalg import sqrtm

    generated, train = _points(n, n, dim)
    held_out = _points(n + 1, 1, dim)[0][:n]
    ours = lambda: metrics.frechet_distance(generated, train, held_out).value

    def direct(points: np.ndarray) -> float:
        a, b = (np.cov(x.astype(np.float64), rowvar=False) for x in (points, train))
        root = np.asarray(sqrtm(a @ b))
        mean = points.mean(0, dtype=np.float64) - train.mean(0, dtype=np.float64)
        return float(mean @ mean + np.trace(a) + np.trace(b) - 2 * np.trace(root.real))

    peer = lambda: [direct(points) for points in (generated, held_out)]
    return {
        **{"name": "frechet_distance", "peer": "scipy sqrtm of the product"},
        **{"points": n, "dim": dim, "relative_difference": abs(ours() / peer()[0] - 1)},
        **{"ratio of": "jdiff (value, control, intervals by parts) / peer (value, control)"},
        **timing.compare(ours, peer, min(rounds, 1)),
    }


def _all(n: int, num: int, side: int, options: Any) -> dict[str, Any]:
    """Every measure of one architecture, compilation and the classifier's training included."""
    if options.data is not None:
        whole = jdiff.data.load(options.data, data_dir=options.data_dir)
    else:
        whole = jdiff.data.load("digits")
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
    found = jdiff.study.evaluate(samples, data, denoiser, progress=False)
    return {
        **{"name": "all_measures", "data": data.name, "samples": n, "num_train": data.num_train},
        **{"image_shape": list(data.image_shape), "measures": len(found.measures)},
        **{"skipped": found.record["skipped"], "seconds": time.perf_counter() - started},
        "seconds_of_each": found.record["seconds"],
    }
