"""What the training loop adds to a step, and what the CPU's compiler option is worth.

Compared with: a bare jitted value-and-grad plus AdamW update of the same network on a fixed batch,
with the same compiler options: no drawing of data, noise levels or noise, no averaged weights, no
metrics, no bar. And that bare step with the option against without.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdiff
from benchmarks import timing
from jdiff import parallel

# (image shape, batch, UNet options, steps a measurement, rounds)
SIZES = {
    "smoke": [((8, 8, 1), 32, {"width": 8, "levels": 1}, 4, 2)],
    "cpu": [
        ((8, 8, 1), 128, {}, 40, 7),
        ((32, 32, 3), 64, {"width": 32, "levels": 3}, 3, 7),
    ],
    "accelerator": [((32, 32, 3), 256, {"width": 64, "levels": 3}, 100, 7)],
}


def run(size: str, options: Any) -> list[dict[str, Any]]:
    """Ratios of step times, two rows a shape."""
    return [row for case in SIZES[size] for row in _case(*case)]


def _case(
    shape: tuple, batch: int, network_options: dict, steps: int, rounds: int
) -> list[dict[str, Any]]:
    network = jdiff.networks.create("unet", shape, **network_options)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1024, *shape), dtype=np.uint8)
    data = jdiff.data.from_arrays(images, held_out=images[:64])
    # The first step of a call compiles or is not counted, so one more is asked for.
    config = jdiff.TrainConfig(
        steps=steps + 1, batch_size=batch, warmup=0, eval_every=10**6, eval_examples=1
    )
    key = jax.random.key(0)
    loop_seconds = []

    def loop() -> None:
        result = jdiff.train(network, data, config, key=key, progress=False)
        loop_seconds.append(batch / result.images_per_s)

    with_option = _bare(network, shape, batch, parallel.compiler_options(convolutions=True))
    loop(), with_option(steps)
    loop_seconds.clear()
    bare_seconds = []
    for _ in range(rounds):
        loop()
        bare_seconds.append(timing.seconds(lambda: with_option(steps)) / steps)
    ratios = np.array(loop_seconds) / np.array(bare_seconds)
    about = {
        "image_shape": list(shape),
        "batch": batch,
        "num_params": jdiff.networks.num_params(network, shape),
    }
    rows = [
        {
            "row": "jdiff.train's step over the bare step",
            **about,
            "a_seconds": float(np.median(loop_seconds)),
            "b_seconds": float(np.median(bare_seconds)),
            "ratio": float(np.median(ratios)),
            "ratio_spread": [float(ratios.min()), float(ratios.max())],
            "rounds": rounds,
        }
    ]
    if parallel.compiler_options(convolutions=True):
        without = _bare(network, shape, batch, {})
        once = max(1, steps // 10)
        found = timing.compare(lambda: without(once), lambda: with_option(once), min(rounds, 5))
        found["a_seconds"], found["b_seconds"] = (
            found["a_seconds"] / once,
            found["b_seconds"] / once,
        )
        rows.append({"row": "bare step without over with the compiler option", **about, **found})
    return rows


def _bare(network: Any, shape: tuple, batch: int, options: dict) -> Any:
    """The same network's value-and-grad and update on one fixed batch; takes a number of steps."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(-1, 1, (batch, *shape)), jnp.float32)
    z = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    sigma = jnp.asarray(np.exp(rng.normal(-1.2, 1.2, batch)), jnp.float32)
    optimizer = optax.adamw(2e-3, weight_decay=0.0)
    params = jdiff.networks.init(network, jax.random.key(0), shape)["params"]

    def step(params: Any, opt_state: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            # The edm row at data deviation 0.5, written out: nothing of jdiff's loop is used.
            s, sd = sigma[:, None, None, None], 0.5
            y, total = x + s * z, s**2 + sd**2
            f = network.apply({"params": params}, y / jnp.sqrt(total), jnp.log(sigma) / 4)
            x_hat = sd**2 / total * y + s * sd / jnp.sqrt(total) * f
            return jnp.mean(total / (s * sd) ** 2 * (x_hat - x) ** 2)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    compiled = jax.jit(step, donate_argnums=(0, 1), compiler_options=options or None)
    state = [params, optimizer.init(params)]

    def steps(count: int) -> None:
        value = None
        for _ in range(count):
            state[0], state[1], value = compiled(state[0], state[1])
        jax.block_until_ready(value)

    return steps
