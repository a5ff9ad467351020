"""The bare step of any linen network: what is left of training when everything around it is gone.

One fixed batch, the EDM denoising loss written out, its gradient, an AdamW update: no drawing of
data, noise levels or noise, no averaged weights, no metrics. Needs jax, optax and NumPy alone, so
that peers, which have no jdiff, run this very code.

With s the noise level of an image, sd = 0.5 the data's deviation, y = x + s z and t = s^2 + sd^2:

    x_hat = sd^2 / t y + s sd / sqrt(t) F(y / sqrt(t), log(s) / 4)
    loss = mean t / (s sd)^2 (x_hat - x)^2

Source: Karras et al., "Elucidating the design space of diffusion-based generative models", 2022,
table 1.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

DEVIATION = 0.5


def train_steps(
    network: Any,
    image_shape: Sequence[int],
    batch: int,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[[int], float]:
    """Compiles a training step and runs it once.

    Args:
      network: a linen module, (x [B, H, W, C], c_noise [B]) -> F like x.
      image_shape: (H, W, C).
      batch: images a step.
      compiler_options: XLA's, for the step; None leaves them as they are.

    Returns:
      n -> seconds per step of n steps in a row, waited for at their end.
    """
    data = _fixed_batch(image_shape, batch)
    variables = _init(network, image_shape)
    params = variables.pop("params")
    optimizer = optax.adamw(2e-3, weight_decay=0.0)

    def step(params: Any, opt_state: Any, data: Any) -> Any:
        x, z, sigma = data  # not constants, which XLA would fold

        def loss(params: Any) -> jax.Array:
            s, sd = sigma[:, None, None, None], DEVIATION
            y, t = x + s * z, s**2 + sd**2
            f = network.apply({"params": params, **variables}, y / jnp.sqrt(t), jnp.log(sigma) / 4)
            x_hat = sd**2 / t * y + s * sd / jnp.sqrt(t) * f
            return jnp.mean(t / (s * sd) ** 2 * (x_hat - x) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    compiled = jax.jit(step, donate_argnums=(0, 1), compiler_options=compiler_options or None)
    state = compiled(params, optimizer.init(params), data)

    def steps(count: int) -> float:
        nonlocal state
        jax.block_until_ready(state)
        started = time.perf_counter()
        for _ in range(count):
            state = compiled(*state[:2], data)
        jax.block_until_ready(state)
        return (time.perf_counter() - started) / count

    return steps


def forward_steps(
    network: Any,
    image_shape: Sequence[int],
    batch: int,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[[int], float]:
    """As `train_steps`, of the network alone: F of one fixed batch, no gradient."""
    x, z, sigma = _fixed_batch(image_shape, batch)
    s = sigma[:, None, None, None]
    y = (x + s * z) / jnp.sqrt(s**2 + DEVIATION**2)
    c_noise = jnp.log(sigma) / 4
    compiled = jax.jit(network.apply, compiler_options=compiler_options or None)
    variables = _init(network, image_shape)
    jax.block_until_ready(compiled(variables, y, c_noise))
    # A CPU may run calls that do not need each other side by side, which a sampler's calls do.
    one_by_one = jax.default_backend() == "cpu"

    def steps(count: int) -> float:
        started = time.perf_counter()
        f = None
        for _ in range(count):
            f = compiled(variables, y, c_noise)
            if one_by_one:
                jax.block_until_ready(f)
        jax.block_until_ready(f)
        return (time.perf_counter() - started) / count

    return steps


def num_params(network: Any, image_shape: Sequence[int]) -> int:
    """The number of learned numbers of a linen network, without making them."""
    shapes = jax.eval_shape(lambda: _init(network, image_shape))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def _init(network: Any, image_shape: Sequence[int]) -> dict[str, Any]:
    x, c_noise = jnp.zeros((1, *image_shape)), jnp.zeros(1)
    return dict(jax.jit(network.init)(jax.random.key(0), x, c_noise))


def _fixed_batch(image_shape: Sequence[int], batch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, noise and noise levels; peers/torch_steps.py has the same."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (batch, *image_shape))
    z = rng.normal(size=x.shape)
    sigma = np.exp(rng.normal(-1.2, 1.2, batch))
    return tuple(jnp.asarray(a, jnp.float32) for a in (x, z, sigma))  # pyright: ignore[reportReturnType]
