"""Real digits, split as jdiff.data splits them, without that room."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [1437, 8, 8, 1] training and [360, 8, 8, 1] held-out images."""
    images = (
        np.rint(load_digits(return_X_y=True)[0] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    )
    images = images[np.random.default_rng(0).permutation(len(images))]
    return images[:1437], images[1437:]
