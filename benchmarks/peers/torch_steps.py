"""Steps of a torch network, as benchmarks/bare.py takes them of a linen one.

"default" is what a script gets that sets nothing; "tuned" has channels_last images, AdamW as one
fused call, cuDNN's search for the fastest convolutions, on a GPU products of tf32, and memory kept
by the allocator (KEEP_MEMORY, from the parent); "compiled" is tuned, the network by torch.compile.
"""

import importlib.metadata
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from worker import Steps, choice, serve

DEVIATION = 0.5
_ABOUT = {
    "default": "eager",
    "tuned": "eager, channels_last, fused AdamW, memory kept",
    "compiled": "by torch.compile, channels_last, fused AdamW, memory kept",
}


def run(make: Callable[[dict[str, Any]], tuple[Any, Any]], package: str, about: str) -> None:
    """Serves a worker.

    Args:
      make: arguments -> (torch module, its call (x [B, C, H, W], c_noise [B]) -> F like x).
      package: the distribution whose version is told, with torch's.
      about: what is run, in a sentence.
    """
    serve(lambda arguments: _build(make, package, about, arguments))


def _build(
    make: Callable, package: str, about: str, arguments: dict[str, Any]
) -> tuple[dict[str, Any], Steps]:
    import torch  # pyright: ignore[reportMissingImports]
    from torch.utils.flop_counter import (  # pyright: ignore[reportMissingImports]
        FlopCounterMode,
    )

    train = choice(arguments, "work", ("train", "forward")) == "train"
    variant = choice(arguments, "variant", ("default", "tuned", "compiled"))
    tuned = variant != "default"
    if variant == "compiled" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ImportError("torch.compile needs a C++ compiler: c++, g++ or clang++")
    if arguments["threads"] is not None:
        torch.set_num_threads(arguments["threads"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = tuned
    if tuned and cuda:
        torch.set_float32_matmul_precision("high")
    layout = torch.channels_last if tuned else torch.contiguous_format

    module, network = make(arguments)
    module.to(device=device, memory_format=layout).train(train)
    x, z, sigma = (torch.from_numpy(a).to(device) for a in _fixed_batch(arguments))
    x, z = (a.contiguous(memory_format=layout) for a in (x, z))
    c_noise, s, sd = torch.log(sigma) / 4, sigma[:, None, None, None], DEVIATION
    y = (x + s * z) / torch.sqrt(s**2 + sd**2)

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    if train:
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=2e-3, weight_decay=0.0, **({"fused": True} if tuned else {})
        )

        def step() -> None:
            optimizer.zero_grad()
            y, t = x + s * z, s**2 + sd**2
            f = network(y / torch.sqrt(t), torch.log(sigma) / 4)
            x_hat = sd**2 / t * y + s * sd / torch.sqrt(t) * f
            torch.mean(t / (s * sd) ** 2 * (x_hat - x) ** 2).backward()
            optimizer.step()
    else:

        def step() -> None:
            with torch.inference_mode():
                network(y, c_noise)

    with FlopCounterMode(display=False) as flops, torch.no_grad():
        found = network(y[:1], c_noise[:1])
    if found.shape != y[:1].shape:
        raise ValueError(f"the network maps {tuple(y[:1].shape)} to {tuple(found.shape)}.")
    if variant == "compiled":  # after the count, which sees no compiled layers
        network = torch.compile(network)
    step()

    def steps(count: int) -> float:
        wait()
        started = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        return (time.perf_counter() - started) / count

    learned = sum(p.numel() for p in module.parameters() if p.requires_grad)
    cpu = f"CPU, {torch.get_num_threads()} threads"
    return {
        "num_params": learned,
        "flops_per_image": flops.get_total_flops(),
        "device": torch.cuda.get_device_name() if cuda else cpu,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", package)},
        "about": f"{about}; {_ABOUT[variant]}",
    }, steps


def _fixed_batch(arguments: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and noise [B, C, H, W], and noise levels; benchmarks/bare.py has the same."""
    rng, batch = np.random.default_rng(1), arguments["batch"]
    x = rng.uniform(-1, 1, (batch, *arguments["image_shape"]))
    z = rng.normal(size=x.shape)
    sigma = np.exp(rng.normal(-1.2, 1.2, batch))
    first = lambda a: np.ascontiguousarray(np.moveaxis(a, -1, 1), np.float32)
    return first(x), first(z), sigma.astype(np.float32)
