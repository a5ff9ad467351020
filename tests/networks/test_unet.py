"""What the UNet promises: shapes, options, gradients, what passes the bottleneck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdiff import networks
from jdiff.networks.unet import UNet, max_levels


def draw(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def perturbed(module, image_shape, rng, scale=0.1):
    """Variables in which nothing is zero any more."""
    variables = networks.init(module, jax.random.key(0), image_shape)
    return jax.tree.map(lambda v: v + scale * draw(rng, *v.shape), variables)


SMALL = UNet(width=4, levels=2)


@pytest.mark.core
@pytest.mark.parametrize(
    ("module", "image_shape"),
    [
        (SMALL, (8, 8, 1)),
        (UNet(width=4, levels=3, blocks=2), (4, 8, 3)),
        (UNet(width=5, levels=1, norm="none"), (7, 3, 2)),
        (UNet(width=4, levels=1), (1, 1, 2)),
        (UNet(width=4, levels=2, skips=False), (2, 2, 1)),
    ],
    ids=["digits", "deep", "odd", "points", "no-skips"],
)
def test_shapes(module, image_shape, rng):
    variables = perturbed(module, image_shape, rng)
    x = draw(rng, 3, *image_shape)
    y = jax.jit(module.apply)(variables, x, jnp.zeros(3))
    assert y.shape == x.shape
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_a_new_network_gives_zero(rng):
    variables = networks.init(SMALL, jax.random.key(0), (8, 8, 1))
    np.testing.assert_array_equal(SMALL.apply(variables, draw(rng, 2, 8, 8, 1), jnp.zeros(2)), 0)


@pytest.mark.core
@pytest.mark.parametrize("norm", ["group", "none"])
def test_gradients_reach_every_parameter(norm, rng):
    module = UNet(width=4, levels=2, norm=norm, num_classes=2)
    variables = perturbed(module, (4, 4, 1), rng)
    x, t, labels = draw(rng, 3, 4, 4, 1), draw(rng, 3), jnp.array([0, 1, 2])
    loss = lambda v: jnp.sum(module.apply(v, x, t, labels) ** 2)
    gradients = jax.jit(jax.grad(loss))(variables)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_jit_pmap_and_eager_agree_and_repeat(rng):
    variables = perturbed(SMALL, (8, 8, 1), rng)
    devices = jax.local_device_count()
    x, t = draw(rng, 2 * devices, 8, 8, 1), draw(rng, 2 * devices)
    jitted = jax.jit(SMALL.apply)
    y = np.asarray(jitted(variables, x, t))
    np.testing.assert_array_equal(jitted(variables, x, t), y)
    split = lambda a: a.reshape(devices, 2, *a.shape[1:])
    mapped = jax.pmap(SMALL.apply, in_axes=(None, 0, 0))
    once = np.asarray(mapped(variables, split(x), split(t)))
    np.testing.assert_array_equal(mapped(variables, split(x), split(t)), once)
    # The same sums in another order: some ten layers of float32 rounding on values of order 1.
    np.testing.assert_allclose(once.reshape(y.shape), y, atol=1e-4 * np.abs(y).max())
    np.testing.assert_allclose(SMALL.apply(variables, x, t), y, atol=1e-4 * np.abs(y).max())


def test_an_image_does_not_see_its_batch(rng):
    variables = perturbed(SMALL, (8, 8, 1), rng)
    x, t = draw(rng, 3, 8, 8, 1), draw(rng, 3)
    together = SMALL.apply(variables, x, t)
    alone = SMALL.apply(variables, x[1:2], t[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4 * float(jnp.abs(alone).max()))
    moved = SMALL.apply(variables, x.at[0].add(1.0), t)
    np.testing.assert_allclose(moved[1:], together[1:], atol=1e-6)
    assert not np.allclose(moved[0], together[0], atol=1e-3)


def test_time_matters(rng):
    variables = perturbed(SMALL, (8, 8, 1), rng)
    x = draw(rng, 2, 8, 8, 1)
    at = lambda t: np.asarray(SMALL.apply(variables, x, jnp.full(2, t)))
    assert np.abs(at(0.0) - at(1.0)).max() > 1e-3


@pytest.mark.core
def test_labels_none_is_the_null_label_and_other_labels_differ(rng):
    module = UNet(width=4, levels=1, num_classes=3)
    variables = perturbed(module, (4, 4, 1), rng)
    x, t = draw(rng, 2, 4, 4, 1), jnp.zeros(2)
    labelled = lambda label: np.asarray(module.apply(variables, x, t, jnp.full(2, label)))
    np.testing.assert_array_equal(module.apply(variables, x, t), labelled(3))
    for label in range(3):
        assert np.abs(labelled(label) - labelled(3)).max() > 1e-3


def test_labels_without_classes_are_refused(rng):
    variables = networks.init(SMALL, jax.random.key(0), (8, 8, 1))
    with pytest.raises(ValueError, match="labels were given to a network without classes"):
        SMALL.apply(variables, draw(rng, 2, 8, 8, 1), jnp.zeros(2), jnp.zeros(2, jnp.int32))


@pytest.mark.parametrize(("skips", "rank"), [(False, 16), (True, 64)])
def test_without_skips_everything_passes_the_bottleneck(skips, rank, rng):
    # Three levels of width 1 on 8x8: the middle holds 2 x 2 x 4 = 16 numbers, and the rank of
    # the network's Jacobian cannot exceed that, unless the image goes round it.
    module = UNet(width=1, levels=3, skips=skips, norm="none")
    variables = perturbed(module, (8, 8, 1), rng, scale=0.5)
    x, t = draw(rng, 1, 8, 8, 1), jnp.zeros(1)
    f = lambda v, x: module.apply(v, x.reshape(1, 8, 8, 1), t).ravel()
    jacobian = jax.jit(jax.jacfwd(f, argnums=1))(variables, x.ravel())
    values = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    # float32 rounding leaves 1e-7 of the largest.
    assert np.sum(values > 1e-5 * values[0]) == rank


def test_the_middle_is_sown_when_asked(rng):
    module = UNet(width=4, levels=3)
    variables = perturbed(module, (8, 8, 1), rng)
    assert set(variables) == {"params"}
    x, t = draw(rng, 2, 8, 8, 1), jnp.zeros(2)
    y, insides = module.apply(variables, x, t, mutable="intermediates")
    (middle,) = insides["intermediates"]["bottleneck"]
    assert middle.shape == (2, 2, 2, 16)
    np.testing.assert_array_equal(y, module.apply(variables, x, t))


def test_size_of_the_common_configuration():
    # diffusers' UNet2DModel with channels (32, 64, 128), one layer a block and no attention has
    # 2.47 M parameters, counted there.
    assert networks.num_params(UNet(), (32, 32, 3)) == pytest.approx(2.47e6, rel=3e-3)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((8, 8, 1), 4), ((28, 28, 1), 3), ((32, 32, 3), 6), ((1, 1, 2), 1), ((6, 4, 1), 2)],
    ids=str,
)
def test_most_levels(shape, levels):
    assert max_levels(shape) == levels


@pytest.mark.parametrize(
    ("shape", "levels", "most"),
    [((8, 8, 1), 5, 4), ((28, 28, 1), 4, 3), ((7, 8, 1), 2, 1)],
    ids=str,
)
def test_too_many_levels_are_refused_when_traced_and_by_create(shape, levels, most):
    message = f"levels must be at most {most} for {shape[0]}x{shape[1]} images .*; got {levels}"
    module = UNet(width=4, levels=levels)
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros(1))
    with pytest.raises(ValueError, match=message):
        networks.create("unet", shape, levels=levels)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"x must have shape \[B, height, width, channels\]"):
        SMALL.init(jax.random.key(0), jnp.zeros((8, 8, 1)), jnp.zeros(8))
    with pytest.raises(ValueError, match=r"c_noise must have shape \(2,\)"):
        SMALL.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), jnp.zeros(()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1; got 0"),
        ({"width": 2.0}, TypeError, "width must be a whole number; got 2.0"),
        ({"levels": 0}, ValueError, "levels must be at least 1; got 0"),
        ({"blocks": "2"}, TypeError, "blocks must be a whole number; got '2'"),
        ({"skips": 1}, TypeError, "skips must be True or False; got 1"),
        ({"norm": "grup"}, ValueError, "norm is 'grup'. Did you mean 'group'.*: group, none"),
        ({"norm": None}, ValueError, "norm is None.*Accepted: group, none"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1; got 0"),
        ({"num_classes": True}, TypeError, "num_classes must be a whole number; got True"),
    ],
    ids=str,
)
def test_options_are_checked_at_construction(options, error, message):
    with pytest.raises(error, match=message):
        UNet(**options)
