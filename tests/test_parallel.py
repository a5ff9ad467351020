"""What `jdiff.parallel` does on one device; of several devices tests/test_devices.py says more."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

import jdiff
from jdiff import denoisers, parallel
from jdiff.denoisers import BottleneckDenoiser, LinearDenoiser, OptimalDenoiser, posterior

pytestmark = pytest.mark.core
ONE = Mesh(np.array(jax.local_devices()[:1]), (parallel.AXIS,))


def images(n: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)


def test_on_one_device_a_denoiser_is_not_split():
    if jax.device_count() > 1:
        pytest.skip(f"needs a machine of one device; jax sees {jax.device_count()}")
    for fitted in (
        OptimalDenoiser.fit(images()),
        BottleneckDenoiser.fit(images(), 3, code="posterior"),
    ):
        assert parallel.shard(fitted) is fitted
        assert parallel.mesh_of(fitted) is None


@pytest.mark.parametrize("thing", [LinearDenoiser, "wrapped", None], ids=str)
def test_what_holds_no_training_set_is_refused(thing):
    denoiser = {"wrapped": denoisers.wrap(lambda y, s: y, (4, 4, 1))}.get(thing, thing)
    if thing is LinearDenoiser:
        denoiser = LinearDenoiser.fit(images())
    with pytest.raises(TypeError, match=f"training set .* got {type(denoiser).__name__}"):
        parallel.shard(denoiser)


def test_a_bottleneck_without_a_training_set_is_refused():
    with pytest.raises(ValueError, match="this BottleneckDenoiser holds none"):
        parallel.shard(BottleneckDenoiser.fit(images(), 3))


def test_the_refusal_names_every_class_that_can_be_split():
    classes = [getattr(denoisers, name) for name in denoisers.__all__]
    able = {cls.__name__ for cls in classes if getattr(cls, "sharded_fields", ())}
    assert able == {"OptimalDenoiser", "BottleneckDenoiser"}
    with pytest.raises(TypeError) as raised:
        parallel.shard(jdiff.LinearDenoiser.fit(images()))
    named = set(re.findall(r"\w+Denoiser", str(raised.value).rpartition("; got")[0]))
    assert named == able


@pytest.mark.parametrize("num", [1, 5, 7])
def test_rows_are_filled_up(num):
    rows = np.arange(2 * num, dtype=np.uint8).reshape(num, 2)
    found = parallel.split_rows(rows, 7, 9, ONE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:num], rows)
    np.testing.assert_array_equal(found[num:], 9)
    assert found.shape == (7, 2)


def test_a_bank_over_one_device_answers_the_same():
    # The program with collectives, of one part: bit for bit but for the blocks' sizes.
    weights = np.array([0.0, 1, 2, 0, 3, 1, 1, 0, 0])
    fitted = OptimalDenoiser.fit(images(), weights, block_size=4)
    split = fitted.replace(bank=fitted.bank.shard(ONE))
    # Rows without weight at the end are left out, then 7 rows are two blocks of 4.
    assert [len(d.bank.images) for d in (fitted, split)] == [12, 8]
    assert split.bank.shard(ONE) is split.bank
    y = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    for sigma in (jnp.float32(5.0), jnp.float32(0.3), jnp.float32(0.01)):
        np.testing.assert_allclose(split(y, sigma), fitted(y, sigma), atol=1e-6)
        named, expected = split.posterior(y, sigma), fitted.posterior(y, sigma)
        np.testing.assert_allclose(named.mean, expected.mean, atol=1e-6)
        heavy = np.asarray(expected.weights[:, :5]) > 1e-6
        np.testing.assert_array_equal(named.indices[:, :5][heavy], expected.indices[:, :5][heavy])


def test_a_program_over_devices_inside_another_is_refused():
    bank = posterior.bank(images()).shard(ONE)
    mean = lambda y: posterior.posterior_mean(bank, y, jnp.ones((2, 1)))
    assert mean(jnp.zeros((2, 16))).shape == (2, 16)
    with pytest.raises(ValueError, match="hold it in a field of a flax.struct.PyTreeNode"):
        parallel.map_devices(mean)(jnp.zeros((1, 2, 16)))


def test_only_what_is_split_has_a_mesh():
    mesh = AbstractMesh((8,), (parallel.AXIS,), axis_types=(AxisType.Auto,))
    laid = lambda spec: jax.ShapeDtypeStruct((8,), "f4", sharding=NamedSharding(mesh, spec))
    assert parallel.mesh_of({"a": np.ones(3), "b": laid(parallel.WHOLE)}) is None
    assert parallel.mesh_of({"a": np.ones(3), "b": laid(parallel.SPLIT)}) == mesh
