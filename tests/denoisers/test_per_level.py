"""One network a noise level, as one denoiser: each level answers with its own network."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdiff
from jdiff.denoisers import NetworkDenoiser, PerLevelDenoiser

SHAPE = (2, 2, 1)
LEVELS = [9.0, 1.0, 0.1]


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


class Net(nn.Module):
    width: int = 4
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.Dense(self.width)(x.reshape(len(x), -1))
        if self.num_classes is not None:
            null = jnp.full(len(x), self.num_classes)
            h += nn.Embed(self.num_classes + 1, self.width)(null if labels is None else labels)
        return nn.Dense(x[0].size)(nn.silu(h)).reshape(x.shape)


def single(seed, level, module=None, **options):
    module = module or Net()
    variables = module.init(jax.random.key(seed), jnp.zeros((1, *SHAPE)), jnp.zeros(1))
    options = {"data_std": 0.4, "preconditioning": "edm", "sigmas": level, **options}
    return NetworkDenoiser.create(module, variables, SHAPE, **options)


@pytest.fixture(scope="module")
def singles():
    return [single(seed, [level]) for seed, level in enumerate(LEVELS)]


@jax.jit
def call(denoiser, y, sigma, labels=None):
    return denoiser(y, sigma, labels)


@pytest.mark.core
def test_each_level_is_its_own_network(singles, rng):
    stacked = PerLevelDenoiser.stack(singles)
    y = jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32)
    found = [np.asarray(call(stacked, y, jnp.float32(level))) for level in LEVELS]
    for one, level, answer in zip(singles, LEVELS, found, strict=True):
        # The same float32 arithmetic on the same weights, in another program.
        np.testing.assert_allclose(answer, one(y, jnp.float32(level)), rtol=2e-6, atol=2e-6)
    assert np.abs(found[0] - found[1]).max() > 0.1  # the networks do differ


def test_a_level_a_row_goes_to_the_row_s_network(singles, rng):
    stacked = PerLevelDenoiser.stack(singles)
    y = jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32)
    found = call(stacked, y, jnp.asarray(LEVELS[::-1], jnp.float32))
    rows = [call(stacked, y[i : i + 1], jnp.float32(s))[0] for i, s in enumerate(LEVELS[::-1])]
    np.testing.assert_allclose(found, np.stack(rows), rtol=2e-6, atol=2e-6)


def test_labels_reach_the_network(rng):
    module = Net(num_classes=2)
    stacked = PerLevelDenoiser.stack([single(i, [s], module) for i, s in enumerate(LEVELS)])
    assert stacked.num_classes == 2
    y = jnp.asarray(rng.standard_normal((2, *SHAPE)), jnp.float32)
    scalar = call(stacked, y, jnp.float32(1.0), jnp.array([0, 1]))
    by_row = call(stacked, y, jnp.full(2, 1.0), jnp.array([0, 1]))
    np.testing.assert_allclose(scalar, by_row, rtol=2e-6, atol=2e-6)
    assert np.abs(scalar - call(stacked, y, jnp.float32(1.0), jnp.array([1, 0]))).max() > 1e-3


def test_it_is_sampled_at_its_own_levels_and_no_others(singles):
    stacked = PerLevelDenoiser.stack(singles)
    samples = jdiff.sample(stacked, jax.random.key(0), 3)
    by_hand = jdiff.sample(stacked, jax.random.key(0), 3, sigmas=[*LEVELS, 0])
    np.testing.assert_array_equal(samples, by_hand)
    with refused(ValueError, "sigmas asks for level 5", "PerLevelDenoiser is defined only at 9, 1"):
        jdiff.sample(stacked, jax.random.key(0), 3, sigmas=[9.0, 5.0, 0])


def test_two_stacks_share_one_compilation(singles):
    other = [single(seed + 7, [level]) for seed, level in enumerate(LEVELS)]
    one, two = (jax.tree.structure(PerLevelDenoiser.stack(n)) for n in (singles, other))
    assert one == two


@pytest.mark.core
@pytest.mark.parametrize(
    ("networks", "error", "words"),
    [
        (lambda: [], ValueError, ["networks must hold at least one"]),
        (lambda: [Net()], TypeError, ["networks[0] must be a NetworkDenoiser; got Net"]),
        (lambda: [single(0, None)], ValueError, ["networks[0] must have one level", "got None"]),
        (
            lambda: [single(0, [2.0, 1.0])],
            ValueError,
            ["networks[0] must have one level", "got [2.0, 1.0]"],
        ),
        (lambda: [single(0, [1.0]), single(1, [2.0])], ValueError, ["sigmas of the networks"]),
        (
            lambda: [single(0, [2.0]), single(1, [1.0], Net(width=5))],
            ValueError,
            ["of one module", "networks[1]"],
        ),
        (
            lambda: [single(0, [2.0]), single(1, [1.0], preconditioning="x0")],
            ValueError,
            ["of one module, preconditioning", "x0"],
        ),
    ],
    ids=["none", "module", "any", "two", "rising", "modules", "rows"],
)
def test_what_cannot_be_stacked_is_refused(networks, error, words):
    with refused(error, *words):
        PerLevelDenoiser.stack(networks())
