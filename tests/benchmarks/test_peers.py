"""Peers answer or say why not, in processes of their own; the transcription is jdiff's UNet."""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bare, suite, transcription
from benchmarks.peers import KEEP_MEMORY, NAMES, Peer
from jdiff import networks

SHAPE = (8, 8, 3)
CHANNELS = (8, 16, 32)

READY = """
import json, os, sys
say = lambda **message: print(json.dumps(message), flush=True)
ready = lambda **more: say(
    ready=True, num_params=7, flops_per_image=9, device="none", versions={}, about="a fake", **more
)
"""


@pytest.fixture
def peer(tmp_path):
    """Makes a peer of a fake worker's code."""

    def make(code: str, arguments=None, pythons=(), timeout=60.0) -> Peer:
        script = tmp_path / "fake.py"
        script.write_text(READY + code)
        return Peer("fake", arguments or {}, pythons, script=script, timeout=timeout)

    return make


def test_a_worker_is_told_its_arguments_and_asked_for_steps(peer):
    code = """
arguments = json.loads(sys.argv[1])
ready(arguments=arguments)
print("no message", file=sys.stderr)
for line in sys.stdin:
    say(seconds_per_step=arguments["batch"] / int(line))
"""
    arguments = {"batch": 8, "variant": "default"}
    with peer(code, arguments) as started:
        assert started.about["arguments"] == arguments
        assert started.about["num_params"] == 7
        assert [started.steps(n) for n in (1, 2, 16)] == [8.0, 4.0, 0.5]
        process = started._process
    assert process.returncode == 0  # its input ended, and so did it


def test_tuned_workers_start_with_an_allocator_that_keeps_its_memory(peer):
    code = "ready(environment={n: v for n, v in os.environ.items() if n.startswith('MALLOC_')})"
    found = {}
    for variant in ("default", "tuned"):
        with peer(code, {"variant": variant}) as started:
            found[variant] = started.about["environment"]
    mine = {n: v for n, v in os.environ.items() if n.startswith("MALLOC_")}
    assert found["default"] == mine
    assert found["tuned"] == {**mine, **KEEP_MEMORY}


def test_workers_have_the_checkout_and_no_budgets_of_tests(peer, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("JDIFF_BUDGET", "tiny")
    code = "ready(path=os.environ['PYTHONPATH'], budget=os.environ.get('JDIFF_BUDGET'))"
    with peer(code) as started:
        first, then = started.about["path"].split(":")
        assert (Path(first) / "jdiff" / "__init__.py").exists()
        assert then == str(tmp_path)
        assert started.about["budget"] is None


def test_jdiffs_own_unet_takes_steps_in_a_process_of_its_own(monkeypatch):
    """The one peer that is installed wherever jdiff is: messages, counts, steps, all of it real."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # it would mostly compile
    shape, channels = (8, 8, 1), (8,)
    arguments = {
        **{"image_shape": list(shape), "batch": 4, "channels": list(channels)},
        **{"layers_per_block": 1, "work": "train", "variant": "tuned", "threads": 1},
    }
    network = networks.create("unet", shape, width=8, levels=1)
    with Peer("jdiff_unet", arguments) as started:
        assert started.about["num_params"] == networks.num_params(network, shape)
        assert started.about["flops_per_image"] == networks.flops_per_image(network, shape)
        assert "threads" in started.about["device"] or jax.default_backend() != "cpu"
        assert {"jax", "flax", "optax"} == set(started.about["versions"])
        assert 0 < started.steps(2) < 60


def test_the_first_python_that_does_not_skip_is_taken(peer, tmp_path):
    other = tmp_path / "other"
    other.write_text(f'#!/bin/sh\nFAKE_OTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    code = """
if "FAKE_OTHER" not in os.environ:
    say(skipped="no module named cat")
    sys.exit()
ready()
for line in sys.stdin:
    say(seconds_per_step=1.0)
"""
    with peer(code, pythons=[other]) as started:
        assert started.steps(1) == 1.0
    # The same Python named again is not asked again: its reason is told once.
    with pytest.raises(suite.Skip, match="^no module named cat$"):
        peer(code, pythons=[sys.executable]).__enter__()


def test_a_worker_that_dies_is_an_error_with_its_last_words_and_no_folders(peer, tmp_path):
    code = """
ready()
sys.stdin.readline()
raise RuntimeError("no more memory for " + __file__)
"""
    with peer(code) as started, pytest.raises(RuntimeError) as caught:
        started.steps(1)
    message = str(caught.value)
    assert "fake ended with status 1" in message
    assert "RuntimeError: no more memory for fake.py" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("sys.exit('cannot start')", "ended with status 1.*cannot start"),
        ("print('warming up')", "said 'warming up', which is no message"),
        ("say(ready=True)", "which is no message"),
        ("print('[1]')", "which is no message"),
        ("ready(); sys.stdin.readline(); print('3 seconds')", "said '3 seconds'"),
        ("ready(); sys.stdin.readline(); say(seconds_per_step=None)", "took None seconds"),
        ("ready(); sys.stdin.readline(); say(seconds_per_step=-1.0)", "took -1.0 seconds"),
    ],
    ids=["dies", "garbage", "half", "list", "garbage later", "no number", "negative"],
)
def test_a_worker_that_says_something_else_is_an_error(peer, code, match):
    with pytest.raises(RuntimeError, match=match), peer(code) as started:
        started.steps(1)


def test_a_worker_that_says_nothing_is_given_up(peer):
    started = peer("import time; time.sleep(600)", timeout=0.5)
    with pytest.raises(RuntimeError, match="gave no answer within 0.5 s"), started:
        pass
    assert started._process.returncode is not None


def test_what_cannot_be_started_is_refused(peer):
    with pytest.raises(ValueError, match="name must be one of dewml_unet, .*; got 'diffuser'"):
        Peer("diffuser", {})
    code = "say(skipped='absent')"
    with pytest.raises(ValueError, match="pythons must be interpreters; got nowhere/python"):
        peer(code, pythons=["nowhere/python"]).__enter__()


@pytest.mark.parametrize("name", NAMES)
def test_a_worker_of_this_folder_skips_where_its_package_is_absent(name, tmp_path, monkeypatch):
    # Modules that cannot be imported stand before all others, whatever is installed here.
    packages = {"dewml_unet": "dew", "jdiff_unet": "jax"}  # the checkout's jdiff comes first
    packages["hackable_diffusion_unet"] = "hackable_diffusion"
    package = packages.get(name, "torch")
    (tmp_path / f"{package}.py").write_text("raise ImportError('absent on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = {
        **{"image_shape": [8, 8, 3], "batch": 2, "channels": [8, 16], "layers_per_block": 1},
        **{"work": "train", "variant": "default", "threads": 1},
    }
    with pytest.raises(suite.Skip, match=r"^Python 3[.\d]+: absent on purpose$"):
        Peer(name, arguments).__enter__()


def test_the_transcription_is_the_default_unet():
    # The same function of the same parameters.
    ours = networks.create("unet", SHAPE, width=CHANNELS[0], levels=3)
    theirs = transcription.UNet(CHANNELS)
    x = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    c_noise = jnp.linspace(-1.5, 1.0, 4)
    params = networks.init(ours, jax.random.key(0), SHAPE)["params"]
    # Layers that start at zero would hide what stands before them.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)

    apply: Any = lambda network, params: jax.jit(network.apply)({"params": params}, x, c_noise)
    expected, found = apply(ours, params), apply(theirs, _renamed(params))
    assert found.shape == x.shape
    scale = float(jnp.std(expected))
    assert scale > 0.1
    # Float32 sums in another order, through some thirty layers.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)
    # Parameters that it does not use would go unnoticed above.
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    init = jax.eval_shape(theirs.init, jax.random.key(2), x, c_noise)
    assert shapes(_renamed(params)) == shapes(init["params"])


def _renamed(params: dict) -> dict:
    """The parameters of jdiff's UNet of three levels under the transcription's names."""
    convolutions = {"UpsampleConv_0": "Conv_3", "UpsampleConv_1": "Conv_4", "Conv_3": "Conv_5"}
    renamed = {}
    for name, layer in params.items():
        if name.startswith("NormActivation_"):
            renamed[name.replace("NormActivation", "GroupNorm")] = layer["GroupNorm_0"]
        elif name.startswith("ResBlock_"):
            renamed[name.replace("ResBlock", "Block")] = _renamed(layer)
        elif name == "TimeEmbedding_0":
            renamed |= layer
        else:
            renamed[convolutions.get(name, name)] = layer
    return renamed


def test_the_transcription_has_as_many_parameters_as_jdiffs_unet():
    shape = (32, 32, 3)
    ours = networks.num_params(networks.create("unet", shape, width=32, levels=3), shape)
    assert bare.num_params(transcription.UNet(), shape) == ours == 2_474_051


@pytest.mark.parametrize("steps", [bare.train_steps, bare.forward_steps])
def test_bare_steps_take_seconds(steps):
    assert 0 < steps(transcription.UNet((4,)), (2, 2, 1), 3)(2) < 60
