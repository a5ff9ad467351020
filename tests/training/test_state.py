"""What a training configuration accepts, and the optimizers it names."""

import math
import re
from typing import Any

import numpy as np
import pytest

from jdiff.training import TrainConfig
from jdiff.training.state import learning_rate, optimizer


def refused(error, *words):
    """pytest.raises(error) whose message holds all words, in order."""
    return pytest.raises(error, match=".*".join(re.escape(word) for word in words))


@pytest.mark.core
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1; got 0"),
        ({"steps": 2.0}, TypeError, "steps must be a whole number; got 2.0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ({"batch_size": True}, TypeError, "batch_size must be a whole number; got True"),
        ({"eval_examples": 0}, ValueError, "eval_examples must be at least 1; got 0"),
        ({"eval_every": 0}, ValueError, "eval_every must be at least 1; got 0"),
        ({"checkpoint_every": -1}, ValueError, "checkpoint_every must be at least 1; got -1"),
        ({"steps_per_call": 0}, ValueError, "steps_per_call must be at least 1; got 0"),
        ({"steps_per_call": 1.5}, TypeError, "steps_per_call must be a whole number; got 1.5"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0; got -1"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be in (0, inf); got 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be in (0, inf); got nan"),
        ({"learning_rate": None}, TypeError, "learning_rate must be a number; got None"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be in [0, inf); got -0.1"),
        ({"ema_decay": 1.0}, ValueError, "ema_decay must be in [0, 1); got 1.0"),
        ({"ema_decay": -0.1}, ValueError, "ema_decay must be in [0, 1); got -0.1"),
        ({"label_dropout": 1.1}, ValueError, "label_dropout must be in [0, 1); got 1.1"),
        ({"schedule": "cosin"}, ValueError, "schedule is 'cosin'. Did you mean 'cosine'?"),
        ({"optimizer": "adam"}, ValueError, "optimizer is 'adam'. Did you mean 'adamw'? Accepted:"),
        ({"optimizer": None}, ValueError, "optimizer is None. Accepted: adamw, sgd."),
        (
            {"preconditioning": "x"},
            ValueError,
            "preconditioning is 'x'. Did you mean 'x0'? Accepted: edm, eps, v,",
        ),
        ({"noise": "edm-lognormal"}, ValueError, "noise is 'edm-lognormal'. Did you mean"),
        ({"noise": -1.0}, ValueError, "noise must be in (0, inf); got -1.0"),
        ({"noise": None}, TypeError, "noise must be a number; got None"),
        (
            {"optimizer": "sgd", "weight_decay": 0.1},
            ValueError,
            "weight_decay must be 0 with optimizer='sgd', which has none; got 0.1",
        ),
    ],
    ids=str,
)
def test_config_refuses(change, error, words):
    with refused(error, words):
        TrainConfig(**change)


def test_ends_that_are_accepted():
    changes: list[dict[str, Any]] = [
        {"warmup": 0},
        {"weight_decay": 0},
        {"ema_decay": 0},
        {"label_dropout": 0},
        {"noise": 0.5},
        {"preconditioning": "v"},
        {"optimizer": "sgd"},
    ]
    for change in changes:
        TrainConfig(**change)


def test_equal_configs_are_one_key_of_the_cache():
    assert TrainConfig(steps=3) == TrainConfig(steps=3)
    assert hash(TrainConfig(steps=3)) == hash(TrainConfig(steps=3))
    assert TrainConfig(steps=3) != TrainConfig(steps=4)


def updates(gradients, **options: Any):
    """What the optimizer adds to a parameter 1.0, one gradient after another."""
    rule = optimizer(TrainConfig(**options))
    params, found = np.ones(1, np.float32), []
    state = rule.init(params)
    for gradient in gradients:
        change, state = rule.update(np.full(1, gradient, np.float32), state, params)
        found.append(float(np.asarray(change)[0]))
    return found


@pytest.mark.core
def test_warm_up_rises_linearly_and_stays():
    found = updates([1.0] * 6, optimizer="sgd", learning_rate=0.8, warmup=4)
    np.testing.assert_allclose(found, [-0.2, -0.4, -0.6, -0.8, -0.8, -0.8], rtol=1e-6)
    assert updates([1.0, 1.0], optimizer="sgd", learning_rate=0.8, warmup=0) == pytest.approx(
        [-0.8] * 2
    )


def test_adamw_by_hand():
    """Kingma and Ba 2015, algorithm 1, with Loshchilov and Hutter's decay of the parameter 1."""
    gradients, rate, decay = [0.5, -0.1, 0.2], 0.01, 0.3
    m = v = 0.0
    wanted = []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        wanted.append(-rate * (step + decay * 1.0))
    found = updates(gradients, learning_rate=rate, weight_decay=decay, warmup=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.core
def test_the_cosine_schedule_falls_from_the_rate_to_nothing():
    config = TrainConfig(steps=110, warmup=10, learning_rate=0.2, schedule="cosine")
    rate = lambda count: float(learning_rate(config, count))
    # By hand: warm-up, the top, half way down, the end.
    assert [rate(0), rate(4), rate(10)] == pytest.approx([0.02, 0.1, 0.2])
    assert rate(60) == pytest.approx(0.1)
    assert rate(35) == pytest.approx(0.2 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(110) == pytest.approx(0, abs=1e-8)
    assert rate(500) == pytest.approx(0, abs=1e-8)


def test_an_optimizer_steps_by_the_schedule():
    config = TrainConfig(steps=4, warmup=0, learning_rate=0.5, schedule="cosine", optimizer="sgd")
    rule, params = optimizer(config), np.zeros(1, np.float32)
    state, moved = rule.init(params), []
    for _ in range(4):
        update: Any
        update, state = rule.update(np.ones(1, np.float32), state, params)
        moved.append(-float(update[0]))
    wanted = [0.25 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]
    # A float32 cosine.
    assert moved == pytest.approx(wanted, rel=1e-6)
