"""The classifier's layers against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff.networks.classifier import Classifier, ConvFeatures


def convolve(x, kernel, bias):
    """3x3, zero padding, [B, H, W, C] -> [B, H, W, F]: the sum over shifted images."""
    _, height, width, _ = x.shape
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return bias + sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )


def pool(x):
    """Means of 2x2 pixels; of what there is where a size is odd."""
    rows, columns = (range(0, size, 2) for size in x.shape[1:3])
    means = [[x[:, i : i + 2, j : j + 2].mean((1, 2)) for j in columns] for i in rows]
    return np.moveaxis(np.array(means), 2, 0)


def numbers(tree):
    """Weights of another size than they start with: biases are not 0."""
    rng = np.random.default_rng(1)
    draw = lambda leaf: rng.standard_normal(leaf.shape) / np.sqrt(max(1, leaf.size / 30))
    return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf), jnp.float32), tree)


@pytest.mark.core
@pytest.mark.parametrize("shape", [(9, 6, 2), (8, 8, 1), (1, 1, 3)], ids=str)
def test_they_equal_the_formula(shape, rng):
    module = Classifier(num_classes=3, dim=16)
    x = jnp.asarray(rng.uniform(-0.3, 1.3, (4, *shape)), jnp.float32)
    variables = numbers(jax.eval_shape(module.init, jax.random.key(0), x))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    h = 2 * np.asarray(x, np.float64) - 1
    for i in range(3):
        layer = params["features"][f"Conv_{i}"]
        h = pool(np.maximum(convolve(h, layer["kernel"], layer["bias"]), 0))
    dense = params["features"]["Dense_0"]
    features = h.reshape(4, -1) @ dense["kernel"] + dense["bias"]
    logits = np.maximum(features, 0) @ params["head"]["kernel"] + params["head"]["bias"]
    assert (features < 0).any()  # what the ReLU before the logits takes away
    # Sums of at most 600 float32 products of size about 1.
    given = {"params": variables["params"]["features"]}
    found = jax.jit(ConvFeatures(16).apply)(given, x)
    np.testing.assert_allclose(found, features, atol=1e-4 * np.abs(features).max())
    found = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())


def test_the_signal_keeps_its_size_at_the_start(rng):
    # Without 2 in He's variance four layers would leave 1/16 of the mean square, besides what
    # pooling takes from a noise image: about a quarter a layer of what varies from pixel to pixel.
    module = ConvFeatures(64)
    x = jnp.asarray(rng.uniform(0, 1, (16, 16, 16, 1)).round(), jnp.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    size = float(jnp.mean(jax.jit(module.apply)(variables, x) ** 2))
    assert 0.2 < size < 4
    other = jax.jit(module.init)(jax.random.key(1), x)
    kernel = lambda v: np.asarray(v["params"]["Conv_0"]["kernel"])
    assert not np.allclose(kernel(other), kernel(variables))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ConvFeatures(0), ValueError, "dim must be at least 1; got 0"),
        (lambda: ConvFeatures(1.5), TypeError, "dim must be a whole number"),  # type: ignore
        (lambda: Classifier(1), ValueError, "num_classes must be at least 2; got 1"),
        (lambda: Classifier(3, True), TypeError, "dim must be a whole number"),
    ],
    ids=["dim", "fraction", "classes", "bool"],
)
def test_options_are_checked_at_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()
