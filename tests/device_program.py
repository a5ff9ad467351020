"""What tests/test_devices.py runs in processes of their own: the same work on other devices.

Arguments: output file, devices of this process, process number, number of processes, port.
"""

import os
import sys
from typing import Any

import numpy as np

OUT, DEVICES, PROCESS, PROCESSES, PORT = sys.argv[1], *map(int, sys.argv[2:6])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402  (the flag must be set first)
import jax.numpy as jnp  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402

if PROCESSES > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", PROCESSES, PROCESS)

import flax.linen as nn  # noqa: E402

import jdiff  # noqa: E402
from jdiff import noise, parallel  # noqa: E402
from jdiff.denoisers import BottleneckDenoiser, LocalLinearDenoiser  # noqa: E402
from jdiff.sampling import solve, solvers  # noqa: E402


class TwoConvolutions(nn.Module):
    """Convolutions as in a UNet, but compiled in seconds by each of five processes."""

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        h = nn.Conv(16, (3, 3))(x) + nn.Dense(16)(c_noise[:, None])[:, None, None]
        return nn.Conv(x.shape[-1], (3, 3))(nn.silu(h))


def main() -> None:
    assert jax.device_count() == DEVICES * PROCESSES, jax.devices()
    found: dict[str, Any] = {"devices": jax.device_count()}
    data = jdiff.data.load("digits")
    key = jax.random.key(7)
    found["parts"] = len(parallel.replicate(jnp.zeros(3)).addressable_shards)

    # The starting noise alone: a denoiser that returns what it gets, one step.
    identity = jdiff.denoisers.wrap(lambda y, sigma: y, data.image_shape)
    found["noise"] = jdiff.sample(identity, key, 37, sigmas=[1.0, 0.0])
    optimal = jdiff.OptimalDenoiser.fit(data.images)
    for solver in ("ddim", "ddpm"):
        for batch in (8, 16, 64) if PROCESSES == 1 else (16,):
            name = f"optimal_{solver}_{batch}"
            found[name] = jdiff.sample(optimal, key, 37, solver=solver, batch_size=batch)
    # In coordinates of its axes, through a scan over shifts, through a posterior over codes.
    closed = {
        "linear": jdiff.LinearDenoiser.fit(data.images),
        "local": LocalLinearDenoiser.fit(data.images, patch_size=3),
        "code": BottleneckDenoiser.fit(data.images, 8, code="posterior"),
        "decoder": BottleneckDenoiser.fit(data.images, 8, decoder="posterior"),
    }
    for name, denoiser in closed.items():
        found[f"closed_{name}"] = jdiff.sample(denoiser, key, 37, solver="heun", batch_size=16)
    start = 10 * jax.random.normal(key, (5, *data.image_shape))
    _, way = solve(optimal, start, noise.karras(4, sigma_max=10.0), record=("x_hat",))
    found["way"] = way["x_hat"]
    # The step's own noise, bit for bit: a denoiser that says 0 leaves only the noise.
    zero = jdiff.denoisers.wrap(lambda y, sigma: 0 * y, data.image_shape)
    _, way = solve(zero, start, [2.0, 1.0, 0.5, 0.0], solver=solvers.ddpm(), key=key, record=("y",))
    found["step_noise"] = way["y"]

    network = TwoConvolutions()
    for optimizer, rate in (("sgd", 0.02), ("adamw", 1e-3)):
        config = jdiff.TrainConfig(
            steps=20,
            batch_size=20,  # does not divide over 8 devices: padded
            learning_rate=rate,
            optimizer=optimizer,
            warmup=0,
            eval_every=20,
            eval_examples=50,
        )
        result = jdiff.train(network, data, config, key=key, progress=False)
        if optimizer == "sgd":
            # Through a run directory that all processes share, twice: the second only reads.
            keep = {"key": key, "run_dir": f"{OUT}.run", "progress": False}
            kept = [jdiff.train(network, data, config, **keep) for _ in range(2)]
            for name, run in zip(("kept", "read_again"), kept, strict=True):
                found[f"{name}_params"] = ravel_pytree(run.denoiser.variables["params"])[0]
            found["steps_read_again"] = kept[1].seconds["train"]
        found[f"{optimizer}_loss"] = result.history["loss"]
        found[f"{optimizer}_held_out_loss"] = result.history["held_out_loss"]
        flat = ravel_pytree(result.denoiser.variables["params"])[0]
        found[f"{optimizer}_params"] = flat
        y = jnp.asarray(np.random.default_rng(0).normal(size=(4, *data.image_shape)), jnp.float32)
        found[f"{optimizer}_x_hat"] = result.denoiser(y, jnp.float32(0.7))
    if PROCESS == 0:
        arrays: Any = {name: np.asarray(value) for name, value in found.items()}
        np.savez(OUT, **arrays)


main()
