"""Steps of another library's linen network: benchmarks/bare.py's, the same code as for jdiff's.

"default" is a plain jax.jit; "tuned" has, on a CPU, the compiler option of jdiff/parallel.py, and
memory kept by the allocator (KEEP_MEMORY, from the parent).
"""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from worker import Steps, choice, serve

ROOT = Path(__file__).parents[2]
_TUNED = "jdiff's compiler option for CPUs, memory kept"


def run(make: Callable[[dict[str, Any]], Any], package: str, about: str) -> None:
    """Serves a worker.

    Args:
      make: arguments -> linen module, (x [B, H, W, C], c_noise [B]) -> F like x.
      package: the distribution whose version is told, with jax's and flax's.
      about: what is run, in a sentence.
    """
    serve(lambda arguments: _build(make, package, about, arguments))


def _build(
    make: Callable, package: str, about: str, arguments: dict[str, Any]
) -> tuple[dict[str, Any], Steps]:
    # Read when jax starts: XLA's threads on a CPU; and no share of a GPU that jdiff holds as well.
    if arguments["threads"] is not None:
        os.environ["NPROC"] = str(arguments["threads"])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    network = make(arguments)  # before jax starts: libraries may set its flags

    import jax
    import jax.numpy as jnp

    sys.path.insert(1, str(ROOT))
    from benchmarks import bare

    train = choice(arguments, "work", ("train", "forward")) == "train"
    tuned = choice(arguments, "variant", ("default", "tuned")) == "tuned"
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_cpu_experimental_ynn_fusion_type": ""} if tuned and on_cpu else None
    shape, batch = tuple(arguments["image_shape"]), arguments["batch"]

    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    init = lambda x, c_noise: network.init(jax.random.key(0), x, c_noise)
    variables = jax.eval_shape(init, *one)
    found = jax.eval_shape(network.apply, variables, *one)
    if found.shape != one[0].shape:
        raise ValueError(f"the network maps {one[0].shape} to {found.shape}.")
    steps = (bare.train_steps if train else bare.forward_steps)(network, shape, batch, options)
    cpu = f"CPU, {arguments['threads'] or os.cpu_count()} threads"
    return {
        "num_params": bare.num_params(network, shape),
        "flops_per_image": _flops().count(network.apply, variables, *one),
        "device": cpu if on_cpu else jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax", package)},
        "about": f"{about}; {_TUNED if tuned else 'plain jax.jit'}",
    }, steps


def _flops() -> ModuleType:
    """jdiff/_flops.py, alone: importing jdiff takes what this Python may not have."""
    spec = importlib.util.spec_from_file_location("jdiff_flops", ROOT / "jdiff" / "_flops.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
