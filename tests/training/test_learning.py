"""What networks learn: more than a linear denoiser can; eight images by heart, if they are wide.

Most with convolutions are marked slow, half a minute each: `pytest -m slow tests/training`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff import networks
from jdiff.training import TrainConfig, train

# Convolutions run longer than they compile.
CONVOLUTIONS = [pytest.mark.slow, pytest.mark.optimized]

SHAPE = (8, 8, 1)
LEVEL = 1.0


@pytest.fixture(scope="module")
def few():
    """64 digits, and their best linear denoiser's mean squared error at one level."""
    data = jdiff.data.load("digits").subset(64, jax.random.key(0))
    linear = jdiff.LinearDenoiser.fit(data.images)
    return data, mean_squared_error(linear, data.images)


def mean_squared_error(denoiser, images):
    """On model units, at LEVEL, over four draws of noise."""
    x = np.repeat(images / np.float32(127.5) - 1, 4, axis=0).astype(np.float32)
    z = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    answer = jax.jit(lambda denoiser, y: denoiser(y, jnp.float32(LEVEL)))
    return float(np.mean((np.asarray(answer(denoiser, x + LEVEL * z)) - x) ** 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("unet", {"width": 8, "levels": 1}, marks=CONVOLUTIONS),
        pytest.param("paper_unet", {"width": 8, "levels": 2}, marks=CONVOLUTIONS),
        pytest.param(
            "paper_unet",
            {"width": 8, "levels": 2, "norm": "bias_free_batch"},
            marks=CONVOLUTIONS,
        ),
        pytest.param("resnet", {"width": 32, "depth": 3, "kernel_size": 5}, marks=CONVOLUTIONS),
        ("mlp", {"width": 128, "depth": 2}),
        ("bottleneck_mlp", {"width": 64, "code_dim": 16}),
    ],
    ids=["unet", "paper_unet", "bias_free", "resnet", "mlp", "bottleneck_mlp"],
)
def test_it_denoises_better_than_the_best_linear_denoiser(few, name, options):
    """No affine map can, on these images: a network that does has learnt their shapes."""
    data, linear = few
    network = networks.create(name, SHAPE, **options)
    config = TrainConfig(
        steps=300,
        batch_size=64,
        learning_rate=5e-3,
        warmup=20,
        noise=LEVEL,
        ema_decay=0.98,
        eval_every=300,
    )
    trained = train(network, data, config, key=jax.random.key(1), progress=False).denoiser
    assert mean_squared_error(trained, data.images) < linear


@pytest.mark.parametrize(
    ("name", "options", "steps", "copies"),
    [
        pytest.param("unet", {"width": 16, "levels": 2}, 300, True, marks=CONVOLUTIONS),
        ("mlp", {"width": 256, "depth": 3}, 600, True),
        ("bottleneck_mlp", {"width": 64, "depth": 2, "code_dim": 16}, 600, True),
        ("bottleneck_mlp", {"width": 16, "depth": 1, "code_dim": 1}, 600, False),
    ],
    ids=["wide UNet", "wide MLP", "wide bottleneck", "narrow bottleneck"],
)
def test_wide_networks_know_eight_images_by_heart_and_a_narrow_code_does_not(
    name, options, steps, copies
):
    data = jdiff.data.load("digits").subset(8, jax.random.key(0))
    network = networks.create(name, SHAPE, **options)
    config = TrainConfig(
        steps=steps,
        batch_size=32,
        learning_rate=3e-3,
        warmup=20,
        schedule="cosine",
        ema_decay=0.99,
        eval_every=steps,
    )
    result = train(network, data, config, key=jax.random.key(1), progress=False)
    loss = result.history["loss"]
    assert loss[-50:].mean() < loss[:20].mean() / 4  # the narrow one has learnt something, too
    samples = jdiff.sample(result.denoiser, jax.random.key(2), 64, solver="heun")
    found = jdiff.metrics.memorized_fraction(samples, data.images, data.held_out)
    assert found.interval is not None
    low, high = found.interval
    assert low > 0.5 if copies else high < 0.5
