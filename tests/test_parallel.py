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


def test_rows_on_one_device_are_placed_and_filled_up_too():
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    found = parallel.split_rows(rows, 5, 9, None)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[0, 1], [2, 3], [4, 5], [9, 9], [9, 9]])
    np.testing.assert_array_equal(parallel.split_rows(rows, 3, 9, None), rows)


EIGHT = AbstractMesh((8,), (parallel.AXIS,), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize(
    ("num_rows", "most", "on_one", "on_eight"),
    [(101, 64, 64, 8 * 13), (5, 64, 5, 8), (1000, 64, 64, 8 * 64), (16, 2, 2, 16)],
)
def test_rows_of_a_call(num_rows, most, on_one, on_eight):
    assert parallel.rows_a_call(num_rows, most, None) == on_one
    assert parallel.rows_a_call(num_rows, most, ONE) == on_one
    assert parallel.rows_a_call(num_rows, most, EIGHT) == on_eight


def test_on_one_device_programs_stay_as_they_are():
    if jax.device_count() > 1:
        pytest.skip(f"needs a machine of one device; jax sees {jax.device_count()}")
    assert parallel.row_devices() is None
    program = lambda x: x
    assert parallel.map_shards(program, None, (parallel.SPLIT,)) is program
    x = jnp.arange(3.0)  # on the device already, and not copied again
    (placed,) = parallel.everywhere((x,), None)
    assert placed.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


def test_a_program_over_devices_sees_its_part_of_the_rows():
    rows = laid((16, 3), parallel.SPLIT)
    seen = []

    def program(x, y):
        seen.append((x.shape, y.shape))
        return x.sum() * y.T

    specs = (parallel.WHOLE, parallel.SPLIT)
    over = parallel.map_shards(program, EIGHT, specs, parallel.SPLIT_SECOND)
    found = jax.eval_shape(over, laid((5,), parallel.WHOLE), rows)
    assert seen == [((5,), (2, 3))]
    assert found.shape == (3, 16)


def laid(shape, spec) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, "f4", sharding=NamedSharding(EIGHT, spec))


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
    assert parallel.mesh_of({"a": np.ones(3), "b": laid((8,), parallel.WHOLE)}) is None
    assert parallel.mesh_of({"a": np.ones(3), "b": laid((8,), parallel.SPLIT)}) == EIGHT
