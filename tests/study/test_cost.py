"""Budgets become steps before training; what a study costs is said before it starts."""

import types

import flax.linen as nn
import numpy as np
import pytest

from jdiff import networks
from jdiff.data import from_arrays
from jdiff.networks import mlp
from jdiff.study import Architecture, Budget, cost
from jdiff.training import TrainConfig


def data_of(side: int):
    images = np.zeros((4, side, side, 1), np.uint8)
    return from_arrays(images, held_out=images)


def mlp_flops(values: int) -> int:
    """By hand, 2 a multiply-add: time embedding, hidden layers, output of the default MLP."""
    width, depth, e = 200, 9, mlp.EMBEDDING
    embedding = 64 * e + e * e
    return 2 * (embedding + (values + e) * width + (depth - 1) * width**2 + width * values)


@pytest.mark.core
def test_steps_are_taken_as_they_are_without_an_image_shape():
    steps = cost.steps(Budget(1000), Architecture.parse("mlp"), data_of(16), 8)
    assert steps == 1000


@pytest.mark.core
@pytest.mark.parametrize("spec", ["mlp", "mlp:width=3"])
def test_steps_are_divided_by_the_ratio_of_flops_on_larger_images(spec):
    # The ratio is that of the network's defaults: options do not change what the budget buys.
    budget, architecture = Budget(1000, image_shape=(8, 8, 1)), Architecture.parse(spec)
    expected = round(1000 * mlp_flops(64) / mlp_flops(256))
    assert expected < 900
    assert cost.steps(budget, architecture, data_of(16), 8) == expected
    assert cost.steps(budget, architecture, data_of(8), 8) == 1000
    assert cost.steps(budget, architecture, data_of(4), 8) == 1000  # never more


@pytest.mark.core
def test_what_is_not_made_for_small_images_counts_by_their_values(monkeypatch):
    class Large(nn.Module):
        width: int  # without a default

        @nn.compact
        def __call__(self, x, c_noise, labels=None, train=False):
            return nn.Dense(1)(nn.Dense(self.width)(x))

    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    networks.register("large", Large)
    budget, architecture = Budget(1000, image_shape=(8, 8, 1)), Architecture.parse("large:width=4")
    assert cost.steps(budget, architecture, data_of(16), 8) == 250


@pytest.mark.core
def test_flops_become_steps_by_hand():
    architecture = Architecture.parse("mlp:width=16,depth=2,time=false")
    forward = 2 * (64 * 16 + 16 * 16 + 16 * 64)  # flattened, hidden, hidden, image
    assert networks.flops_per_image(architecture.network((8, 8, 1)), (8, 8, 1)) == forward
    a_step = 3 * forward * 8  # three forward passes, eight images
    for budget, steps in ((9.9 * a_step, 9), (10.1 * a_step, 10)):
        assert cost.steps(Budget(budget, "flops"), architecture, data_of(8), 8) == steps
    with pytest.raises(ValueError, match=r"at least one step of mlp:.* takes 1\.11e\+05 flops"):
        cost.steps(Budget(0.9 * a_step, "flops"), architecture, data_of(8), 8)


@pytest.mark.core
def test_seconds_become_steps_at_the_speed_that_is_timed(monkeypatch):
    seen = []

    def timed(network, data, config, **kwargs):
        seen.append(config)
        return types.SimpleNamespace(images_per_s=800.0)

    monkeypatch.setattr(cost.training, "train", timed)
    architecture = Architecture.parse("mlp:width=16")
    steps = cost.steps(Budget(2, "seconds"), architecture, data_of(8), 8, learning_rate=0.5)
    assert steps == 200  # 2 s of 100 batches of 8 images a second
    with pytest.raises(ValueError, match="one step of mlp:width=16, which takes 0.01 seconds"):
        cost.steps(Budget(1e-6, "seconds"), architecture, data_of(8), 8)
    assert isinstance(seen[0], TrainConfig)
    assert (seen[0].batch_size, seen[0].learning_rate) == (8, 0.5)


@pytest.mark.core
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert cost.duration(seconds) == words


def test_the_cost_is_said_in_numbers(make_study):
    study = make_study(seeds=(0, 1))
    plan = [(a, 40, s) for a in study.parsed() for s in ((0,) if a.closed_form else (0, 1))]
    flops = {entry: 1000 for entry in plan}
    configs = {entry: TrainConfig(steps=1234, batch_size=8) for entry in plan[2:]}
    text = cost.describe(study, plan, configs, flops)
    assert "tiny: 4 rows on npz:" in text
    # Both seeds of the network are named once.
    assert text.count("mlp:width=16,depth=2 1,234 steps of 8 images") == 1
    # Heun: two evaluations a step but the last.
    assert "draws 24 samples a row from one noise, 7 denoiser evaluations each" in text
    assert "heun, karras:4" in text
    assert "Roughly " in text
    assert "trains nothing" in cost.describe(study, plan[:2], {}, flops)
