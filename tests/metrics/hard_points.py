"""Sets of queries and references that are hard to compare in float32, and float64 brute force."""

import numpy as np

from jdiff.metrics import balls, neighbors

Sets = tuple[np.ndarray, np.ndarray]


def compared(x: np.ndarray) -> np.ndarray:
    """Float64 [n, d] of the float32 values that are compared: images on [0, 1], or features."""
    if x.ndim == 4:
        x = x / np.float32(255) if x.dtype == np.uint8 else (x.astype("f4") + 1) / 2
    return x.astype("f4").reshape(len(x), -1).astype(np.float64)


def brute_force(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Euclidean distances [n, N] by float64 differences."""
    r = compared(references)
    return np.stack([np.sqrt(np.square(q - r).sum(axis=1)) for q in compared(queries)])


def twins(rng: np.random.Generator) -> Sets:
    """Forty families of 25 images a few grey levels apart, far from their mean."""
    families = rng.integers(10, 245, (40, 1, 8, 8, 1))
    references = (families + rng.integers(-1, 2, (40, 25, 8, 8, 1))).reshape(-1, 8, 8, 1)
    queries = (families[:, 0] + rng.normal(0, 0.5, (40, 8, 8, 1))) / 127.5 - 1
    return queries.astype(np.float32), references.astype(np.uint8)


def images(rng: np.random.Generator) -> Sets:
    return rng.normal(0, 1, (30, 6, 5, 3)), rng.integers(0, 256, (700, 6, 5, 3), dtype=np.uint8)


def float_images(rng: np.random.Generator) -> Sets:
    return rng.normal(0, 1, (30, 6, 5, 3)), rng.uniform(-1, 1, (700, 6, 5, 3))


def features(rng: np.random.Generator) -> Sets:
    return rng.normal(size=(70, 20)), rng.normal(size=(900, 20))


def offset(rng: np.random.Generator) -> Sets:
    """Spread 1 about 10,000: |q|^2 - 2 q.r + |r|^2 without a centre is rounding."""
    queries, references = features(rng)
    return queries + 1e4, references + 1e4


def outlier(rng: np.random.Generator) -> Sets:
    """One reference and one query a million times farther out than all others."""
    queries, references = features(rng)
    queries[0], references[0] = 1e6, -1e6
    return queries, references


def scaled(rng: np.random.Generator, factor: float) -> Sets:
    queries, references = features(rng)
    return queries * factor, references * factor


def tiny(rng: np.random.Generator) -> Sets:
    """Products underflow float32, and not all to 0: without that bound 73 % are wrong."""
    return scaled(rng, 1e-19)


def nearly_huge(rng: np.random.Generator) -> Sets:
    """Squares are finite in float32, and most of their sums are not."""
    return scaled(rng, 3e18)


def huge(rng: np.random.Generator) -> Sets:
    """Squares overflow float32."""
    return scaled(rng, 1e25)


def few(rng: np.random.Generator) -> Sets:
    """Fewer references than a list holds."""
    return rng.normal(size=(9, 3)), rng.normal(size=(7, 3))


def many_queries(rng: np.random.Generator) -> Sets:
    """More than are taken at a time."""
    most = max(balls.QUERIES, neighbors.QUERIES)
    return rng.normal(size=(most + 77, 4)), rng.normal(size=(300, 4))


CASES = [
    *(twins, images, float_images, features, offset, outlier),
    *(tiny, nearly_huge, huge, few, many_queries),
]
