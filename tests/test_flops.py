"""FLOPs against counts made by hand: two for every multiply-add, contractions only."""

import jax
import jax.numpy as jnp
import pytest

from jdiff import _flops


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def conv(x, kernel, stride=1, groups=1, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        rhs_dilation=(dilation, dilation),
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.core
def test_a_matmul_is_two_flops_for_each_product():
    assert _flops.count(jnp.dot, struct(3, 5), struct(5, 7)) == 2 * 3 * 5 * 7


def test_a_batched_contraction_counts_every_batch_and_contracted_axis():
    # out [b, i], summed over j and k.
    f = lambda a, b: jnp.einsum("bijk,bjk->bi", a, b)
    assert _flops.count(f, struct(2, 3, 4, 5), struct(2, 4, 5)) == 2 * (2 * 3) * (4 * 5)


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "kernel", "outputs"),
    [
        ({}, (3, 3, 4, 6), 8 * 8 * 6),
        ({"stride": 2}, (3, 3, 4, 6), 4 * 4 * 6),
        ({"dilation": 2}, (3, 3, 4, 6), 8 * 8 * 6),
        # Two groups: each output channel sees half the input channels.
        ({"groups": 2}, (3, 3, 2, 6), 8 * 8 * 6),
        ({}, (1, 5, 4, 1), 8 * 8),
    ],
    ids=["plain", "strided", "dilated", "grouped", "one-by-five"],
)
def test_a_convolution_counts_its_taps_at_every_output(options, kernel, outputs):
    count = _flops.count(lambda x, k: conv(x, k, **options), struct(2, 8, 8, 4), struct(*kernel))
    taps = kernel[0] * kernel[1] * kernel[2]
    assert count == 2 * 2 * outputs * taps


@pytest.mark.parametrize("stride", [1, 2])
def test_both_gradients_of_a_convolution_cost_what_it_costs(stride):
    # Each multiply-add of the forward pass has one in each gradient, also where the input's
    # gradient is computed by spreading the output's with zeros in between.
    x, kernel = struct(2, 8, 8, 4), struct(3, 3, 4, 6)
    forward = _flops.count(lambda x, k: conv(x, k, stride), x, kernel)
    loss = lambda x, k: jnp.sum(conv(x, k, stride) ** 2)
    assert _flops.count(jax.grad(loss, argnums=(0, 1)), x, kernel) == 3 * forward


def test_a_scan_counts_its_body_once_a_step():
    step = lambda carry, _: (jnp.dot(carry, carry), None)
    f = lambda a: jax.lax.scan(step, a, length=7)[0]
    assert _flops.count(f, struct(3, 3)) == 7 * 2 * 27


def test_nested_scans_multiply():
    inner = lambda a: jax.lax.scan(lambda c, _: (jnp.dot(c, c), None), a, length=3)[0]
    f = lambda a: jax.lax.scan(lambda c, _: (inner(c), None), a, length=5)[0]
    assert _flops.count(f, struct(2, 2)) == 15 * 2 * 8


def test_a_cond_counts_its_dearest_branch():
    dear = lambda a: jnp.dot(jnp.dot(a, a), a)
    f = lambda p, a: jax.lax.cond(p, lambda a: jnp.dot(a, a), dear, a)
    assert _flops.count(f, True, struct(3, 3)) == 2 * (2 * 27)


def test_a_while_with_unknown_trips_counts_its_body_once():
    f = lambda a: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: jnp.dot(c, c), a)
    assert _flops.count(f, struct(3, 3)) == 2 * 27


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.vmap], ids=lambda w: w.__name__)
def test_a_wrapped_function_counts_what_is_inside(wrap):
    a, b = struct(4, 3, 5), struct(4, 5, 7)
    assert _flops.count(wrap(jnp.matmul), a, b) == 2 * 4 * 3 * 5 * 7


def test_custom_derivatives_count_what_is_inside():
    square = jax.custom_vjp(lambda a: jnp.dot(a, a))
    square.defvjp(lambda a: (square(a), a), lambda a, g: (g,))
    assert _flops.count(square, struct(3, 3)) == 2 * 27


def test_elementwise_work_is_free():
    assert _flops.count(lambda a: jnp.sum(jnp.exp(a) * a), struct(100, 100)) == 0


def test_convolutions_are_found_also_inside_a_scan():
    step = lambda c, _: (conv(c, jnp.ones((3, 3, 4, 4))), None)
    f = lambda x: jax.lax.scan(step, x, length=2)[0]
    assert _flops.has_convolution(f, struct(1, 8, 8, 4))
    assert not _flops.has_convolution(jnp.dot, struct(3, 3), struct(3, 3))
