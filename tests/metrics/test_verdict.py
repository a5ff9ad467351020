import json

import numpy as np
import pytest

from jdiff.metrics import frechet_distance, memorized_fraction, precision, verdict


def entry(value, low, high, control, control_low, control_high) -> dict:
    return {
        "value": value, "interval": [low, high],
        "control": control, "control_interval": [control_low, control_high],
    }  # fmt: skip


def measures(memorized=(0.0, 0.0, 0.01), control=(0.0, 0.0, 0.01), precise=0.9, frechet=0.1):
    return {
        "memorized_fraction": entry(*memorized, *control),
        "precision": entry(precise, precise - 0.05, precise + 0.05, 0.9, 0.85, 0.95),
        "frechet_distance": entry(frechet, frechet / 2, frechet * 2, 0.1, 0.05, 0.15),
    }


@pytest.mark.core
@pytest.mark.parametrize(
    ("given", "word", "number"),
    [
        pytest.param({"memorized": (0.6, 0.51, 0.7)}, "memorizes", "51.0%", id="above a half"),
        pytest.param({"memorized": (0.6, 0.5, 0.7)}, "mixed", "50.0%", id="not above a half"),
        pytest.param(
            {"memorized": (0.8, 0.7, 0.9), "control": (0.6, 0.5, 0.7)}, "creates", "70.0%",
            id="a half and more, but so has the control",
        ),
        pytest.param(
            {"memorized": (0.8, 0.71, 0.9), "control": (0.6, 0.5, 0.7)}, "memorizes", "71.0%",
            id="more than the control",
        ),
        pytest.param(
            {"memorized": (0.6, 0.51, 0.7), "precise": 0.1, "frechet": 9.0}, "memorizes", "51.0%",
            id="copies come first",
        ),
        pytest.param({"precise": 0.39}, "unrealistic", "0.44", id="precision"),
        pytest.param({"precise": 0.41}, "creates", "0.46", id="precision enough"),
        pytest.param({"frechet": 0.41}, "unrealistic", "0.41", id="frechet"),
        pytest.param({"frechet": 0.4}, "creates", "0.4,", id="frechet small enough"),
        pytest.param(
            {"memorized": (0.2, 0.1, 0.3), "frechet": 0.41}, "unrealistic", "0.41",
            id="unrealistic before mixed",
        ),
        pytest.param({"memorized": (0.02, 0.011, 0.03)}, "mixed", "1.1%", id="a few copies"),
        pytest.param({"memorized": (0.02, 0.01, 0.03)}, "creates", "1.0%", id="as the control"),
    ],
)  # fmt: skip
def test_rule(given, word, number):
    found = verdict(measures(**given))
    assert found.word == word
    assert number in found.reason
    assert found.reason.endswith(".")
    assert ". " not in found.reason  # one sentence


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ("copies", "memorizes"),
        ("gaussian", "unrealistic"),
        ("mean image", "unrealistic"),
        ("held out", "creates"),
        ("half copies", "mixed"),
    ],
)
def test_real_digits(samples, word, digits):
    train, held_out = digits
    flat = train.reshape(len(train), -1) / 127.5 - 1
    rng = np.random.default_rng(1)
    generated = {
        "copies": train[:360],
        "gaussian": rng.multivariate_normal(flat.mean(0), np.cov(flat.T), 360),
        "mean image": np.tile(flat.mean(0), (360, 1)),
        "held out": held_out,
        "half copies": np.concatenate([train[:180], held_out[:180]]),
    }[samples].reshape(-1, 8, 8, 1)
    found = {
        measure.__name__: measure(generated, train, held_out)
        for measure in (memorized_fraction, precision, frechet_distance)
    }
    judged = verdict(found)
    assert judged.word == word
    # What results.json holds judges alike.
    assert verdict(json.loads(json.dumps({k: v.to_dict() for k, v in found.items()}))) == judged
    if samples == "gaussian":  # neither clause alone is enough: this one has the best Fréchet
        frechet = found["frechet_distance"].to_dict()
        assert frechet["value"] < frechet["control"]
    if samples == "mean image":
        assert found["precision"].value == 1.0


def test_other_measures_are_not_read():
    assert verdict({**measures(), "nearest_rms": {"value": None}}).word == "creates"


def without(name: str, field: str | None = None, value=None) -> dict:
    given = measures()
    if field is None:
        del given[name]
    else:
        given[name][field] = value
    return given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (without("precision"), "missing: precision"),
        ({}, "missing: memorized_fraction, precision, frechet_distance"),
        (
            without("frechet_distance", "control"),
            r"measures\['frechet_distance'\] must have a finite control; got None",
        ),
        (without("precision", "interval", [0.1, None]), "must have a finite interval"),
        (without("precision", "value", float("nan")), "must have a finite value; got nan"),
        (
            without("memorized_fraction", "control_interval"),
            r"measures\['memorized_fraction'\] must have a finite control_interval",
        ),
    ],
)
def test_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        verdict(given)
