"""What was fitted or trained comes back as it was, without the data, or says why not."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jdiff
from jdiff import data as datasets
from jdiff import parallel
from jdiff.denoisers import (
    BottleneckDenoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    OptimalDenoiser,
    PatchPolynomialDenoiser,
    PolynomialDenoiser,
    RandomPolynomialDenoiser,
)
from jdiff.study import save

MLP = "mlp-width-16-depth-2-n24-s1"
traces = []


@jax.jit
def call(denoiser, y, sigma, labels):
    traces.append(type(denoiser))
    return denoiser(y, sigma, labels)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    return images, rng.uniform(0.1, 1, 12), np.arange(12) % 3


LEVELS = [0.3, 0.1, 0.0]
CLOSED_FORMS = {
    "optimal": lambda x, w, c: OptimalDenoiser.fit(x),
    "optimal, weights, classes, blocks": lambda x, w, c: OptimalDenoiser.fit(x, w, c, block_size=5),
    "optimal, floats": lambda x, w, c: OptimalDenoiser.fit(x / 127.5 - 1),
    "linear": lambda x, w, c: LinearDenoiser.fit(x),
    "linear, rank, weights": lambda x, w, c: LinearDenoiser.fit(x, rank=3, weights=w),
    "local linear": lambda x, w, c: LocalLinearDenoiser.fit(x, patch_size=3),
    "equivariant": lambda x, w, c: EquivariantLinearDenoiser.fit(x),
    "equivariant, local": lambda x, w, c: EquivariantLinearDenoiser.fit(x, patch_size=3),
    "polynomial": lambda x, w, c: PolynomialDenoiser.fit(x, 1, LEVELS),
    "random polynomial": lambda x, w, c: RandomPolynomialDenoiser.fit(
        x, 3, LEVELS, jax.random.key(0), 8
    ),
    "patch polynomial": lambda x, w, c: PatchPolynomialDenoiser.fit(
        x, 3, LEVELS, (None, 3), jax.random.key(0), num_features=(8, 4)
    ),
    "bottleneck": lambda x, w, c: BottleneckDenoiser.fit(x, 2),
    "bottleneck, posterior code": lambda x, w, c: BottleneckDenoiser.fit(x, 2, code="posterior"),
    "bottleneck, posterior": lambda x, w, c: BottleneckDenoiser.fit(x, 2, decoder="posterior"),
}


@pytest.mark.core
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_closed_form_comes_back_bit_for_bit(tmp_path, arrays, rng, name):
    denoiser = CLOSED_FORMS[name](*arrays)
    save(tmp_path / "run", denoiser)
    found = jdiff.load(tmp_path / "run")
    # Same class, static fields, and leaves with their dtypes: one compiled program serves both.
    assert jax.tree.structure(found) == jax.tree.structure(denoiser)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(denoiser), strict=True):
        assert isinstance(a, jax.Array)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    y = jnp.asarray(rng.standard_normal((3, 4, 4, 1)), jnp.float32)
    labels = jnp.array([0, 1, 2]) if "classes" in name else None
    expected = call(denoiser, y, jnp.float32(0.3), labels)
    compiled = len(traces)
    np.testing.assert_array_equal(call(found, y, jnp.float32(0.3), labels), expected)
    assert len(traces) == compiled
    assert np.abs(np.asarray(expected)).max() > 0.1


def test_a_networks_averaged_weights_come_back_without_the_data(finished, data, tmp_path):
    run = shutil.copytree(finished / "runs" / MLP, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())["train"]
    whole = datasets.load(data)
    subset = whole.subset(24, jax.random.fold_in(jax.random.key(3), 0))
    network = jdiff.networks.create("mlp", (8, 8, 1), width=16, depth=2)
    trained = jdiff.train(
        network,
        subset,
        jdiff.TrainConfig(**config),
        key=jax.random.key(1, impl="threefry2x32"),
        progress=False,
    ).denoiser
    found: Any = jdiff.load(run)
    assert (found.preconditioning, found.image_shape, found.sigmas) == ("x0", (8, 8, 1), None)
    assert found.module == network
    y = 5 * jax.random.normal(jax.random.key(9), (3, 8, 8, 1))
    expected = call(trained, y, jnp.float32(2.0), None)
    np.testing.assert_array_equal(call(found, y, jnp.float32(2.0), None), expected)
    other = jdiff.load(finished / "runs" / MLP.replace("s1", "s2"))
    assert np.abs(np.asarray(call(other, y, jnp.float32(2.0), None) - expected)).max() > 0.01


@pytest.mark.core
def test_the_data_may_be_gone(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "runs" / "optimal-n24-s0", tmp_path / "run")
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    monkeypatch.chdir(tmp_path)
    found: Any = jdiff.load("run")
    assert found.image_shape == (8, 8, 1)
    x_hat = call(found, jnp.zeros((1, 8, 8, 1)), jnp.float32(1e5), None)
    mean = np.asarray(found.bank.center)
    np.testing.assert_allclose(x_hat.reshape(1, 64), mean, atol=1e-4)


def test_a_module_of_ones_own_must_be_given(finished, tmp_path):
    run = shutil.copytree(finished / "runs" / MLP, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["architecture"]["class"] = "my.networks.Thing"
    (run / "config.json").write_text(json.dumps(config))
    message = r"network must be given: .*my\.networks\.Thing is not one of jdiff's own \(bottle"
    with pytest.raises(ValueError, match=message):
        jdiff.load(run)
    network = jdiff.networks.create("mlp", (8, 8, 1), width=16, depth=2)
    with pytest.raises(ValueError, match=r"network is not the one .*Thing' there and .*MLP' here"):
        jdiff.load(run, network=network)


def test_the_module_may_be_given_and_must_be_the_one_that_was_trained(finished):
    run = finished / "runs" / MLP
    network = jdiff.networks.create("mlp", (8, 8, 1), width=16, depth=2)
    found: Any = jdiff.load(run, network=network)
    assert found.module == network
    wider = jdiff.networks.create("mlp", (8, 8, 1), width=17, depth=2)
    with pytest.raises(ValueError, match=r"options\.width is 16 there and 17 here"):
        jdiff.load(run, network=wider)


@pytest.fixture
def linear_run(tmp_path, arrays):
    save(tmp_path / "run", LinearDenoiser.fit(arrays[0]))
    return tmp_path / "run"


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def keep_arrays(run, *names, **factors):
    """Leaves these arrays of denoiser.npz alone, some of them multiplied."""
    with np.load(run / "denoiser.npz") as file:
        kept = {name: file[name] * np.float32(factors.get(name, 1)) for name in names}
        assert len(names) < 3 or set(names) == set(file.files)
    np.savez(run / "denoiser.npz", **kept)


@pytest.mark.core
@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda run: shutil.rmtree(run), FileNotFoundError, "is not a run: it has no config.json"),
        (
            lambda run: (run / "denoiser.npz").unlink(),
            FileNotFoundError,
            "has no denoiser.npz yet",
        ),
        (lambda run: damage(run / "denoiser.npz"), ValueError, "denoiser.npz is damaged"),
        (
            lambda run: (run / "denoiser.npz").write_bytes(b"PK\x03\x04"),
            ValueError,
            "denoiser.npz is damaged",
        ),
        (
            lambda run: keep_arrays(run, "mean"),
            ValueError,
            "denoiser.npz is damaged.*basis",
        ),
        (
            lambda run: keep_arrays(run, "mean", "basis", "eigenvalues", basis=1.5),
            ValueError,
            "denoiser.npz is damaged: basis is not the array that config.json was written with",
        ),
        (
            lambda run: (run / "config.json").write_text("{"),
            ValueError,
            "config.json is damaged",
        ),
        (
            lambda run: (run / "config.json").write_text('{"schema": 99}'),
            ValueError,
            "has schema 99; this version reads 1",
        ),
        (
            lambda run: (run / "config.json").write_text('{"schema": 1, "kind": "netwrk"}'),
            ValueError,
            "kind in config.json is 'netwrk'. Did you mean 'network'?",
        ),
    ],
    ids=[
        *(
            "no run",
            "no arrays",
            "a flipped byte",
            "cut off",
            "an array missing",
            "another's arrays",
        ),
        *("damaged config", "schema", "kind"),
    ],
)
def test_what_cannot_be_loaded_says_why(linear_run, break_it, error, message):
    break_it(linear_run)
    with pytest.raises(error, match=message):
        jdiff.load(linear_run)


def test_a_network_without_a_checkpoint_says_so(finished, tmp_path):
    run = shutil.copytree(finished / "runs" / MLP, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(FileNotFoundError, match="run has no checkpoint yet"):
        jdiff.load(run)


@pytest.mark.core
def test_a_run_belongs_to_one_denoiser(linear_run, arrays, snapshot):
    before = snapshot(linear_run)
    with pytest.raises(ValueError, match=r"form\.basis\.array is \[16, 11\] there and \[16, 3\]"):
        save(linear_run, LinearDenoiser.fit(arrays[0], rank=3))
    with pytest.raises(ValueError, match="form.class is 'LinearDenoiser' there"):
        save(linear_run, OptimalDenoiser.fit(arrays[0]))
    assert snapshot(linear_run) == before
    save(linear_run, LinearDenoiser.fit(arrays[0]))  # the same again is no contradiction


@pytest.mark.core
def test_what_is_no_closed_form_is_not_saved(tmp_path):
    function = jdiff.denoisers.wrap(lambda y, sigma: y, (4, 4, 1))
    with pytest.raises(TypeError, match="denoiser must be one of OptimalDenoiser, Linear"):
        save(tmp_path / "run", function)
    assert not (tmp_path / "run").exists()


@pytest.mark.core
@pytest.mark.parametrize("name", ["optimal", "bottleneck, posterior"])
def test_a_split_training_set_is_not_saved(tmp_path, arrays, name):
    denoiser: Any = CLOSED_FORMS[name](*arrays)
    one = Mesh(np.array(jax.local_devices()[:1]), (parallel.AXIS,))
    split = denoiser.replace(bank=denoiser.bank.shard(one))
    with pytest.raises(ValueError, match="whole; got one .* Save the denoiser that was given to"):
        save(tmp_path / "run", split)
    assert not (tmp_path / "run").exists()
    save(tmp_path / "run", denoiser)
