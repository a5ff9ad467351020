# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own architecture
#
# Bring a denoiser, get its report: copies, creations or nonsense? Three ways in, from the least to
# the most: any function of (y, sigma); a Flax linen module, trained here; a Flax nnx module,
# through its bridge. A registered module can then stand beside jdiff's own in a study.

# %%
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

# Where jdiff comes from: a package name, a git address or a folder.
SOURCE = os.environ.get("JDIFF_SOURCE", "jdiff-jax")
# "tiny" shows that everything runs; "" trains in earnest.
BUDGET = os.environ.get("JDIFF_BUDGET", "")

if importlib.util.find_spec("jdiff") is None:
    # The runtime's own jax fits its TPU or GPU: pip may not replace it.
    kept = []
    for package in ("jax", "jaxlib"):
        try:
            kept.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            pass
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as constraints:
        constraints.write("\n".join(kept))
    command = [sys.executable, "-m", "pip", "install", "-q", "-c", constraints.name, SOURCE]
    subprocess.run(command, check=True)

# %%
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jdiff

TINY = BUDGET == "tiny"
N = 64 if TINY else 360
out = Path(tempfile.mkdtemp())
data = jdiff.data.load("digits")
key = jax.random.key(0)
print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)

# %% [markdown]
# ## Any function
#
# A denoiser is a function of a noisy image y = x + sigma z and of sigma that guesses x: y is [B,
# H, W, C] in model units ([-1, 1] is black to white), sigma one number or [B]. This one shrinks
# every pixel towards the mean image, each by the same factor.

# %%
mean = jnp.asarray(data.images / 127.5 - 1, jnp.float32).mean(0)
variance = float(np.var(data.images / 127.5 - 1 - np.asarray(mean)))


def shrink(y, sigma):
    """The Wiener filter of pixels that know nothing of each other."""
    sigma = jnp.reshape(sigma, (-1, 1, 1, 1))
    return mean + variance / (variance + sigma**2) * (y - mean)


denoiser = jdiff.denoisers.wrap(shrink, data.image_shape)
samples = jdiff.sample(denoiser, key, N, solver="heun")
names = ["memorized_fraction", "precision", "frechet_distance"] if TINY else None  # None: all
evaluation = jdiff.study.evaluate(
    samples, data, denoiser, names=names, features=(), title="shrink", progress=False
)
print(evaluation)
jdiff.report.write_evaluation(out / "shrink.html", evaluation.record, evaluation.arrays)

# %% [markdown]
# ## A linen module
#
# Any module with `__call__(x [B, H, W, C], c_noise [B], labels=None, train=False)` that returns
# something like x. It never sees sigma: `x` is the noisy image scaled to unit variance, `c_noise`
# is log(sigma) / 4, and what its output means is its *preconditioning*: `"x0"` takes it for the
# image itself, `"edm"` mixes it with the noisy image. The denoiser is the whole of that, so the
# architecture constrains what is generated only where the noisy image does not go round it.


# %%
class Patches(nn.Module):
    """Every 4x4 tile by itself: what can a network make that never sees the whole?"""

    width: int = 128
    tile: int = 4

    preconditioning = "x0"

    @nn.compact
    def __call__(self, x, c_noise, labels=None, train=False):
        """Returns the image, tile by tile."""
        b, h, w, c = x.shape
        t = self.tile
        tiles = x.reshape(b, h // t, t, w // t, t, c).transpose(0, 1, 3, 2, 4, 5)
        tiles = tiles.reshape(b, h // t, w // t, t * t * c)
        level = jnp.broadcast_to(c_noise[:, None, None, None], (*tiles.shape[:3], 1))
        h1 = nn.silu(nn.Dense(self.width)(jnp.concatenate([tiles, level], -1)))
        h2 = nn.silu(nn.Dense(self.width)(h1))
        made = nn.Dense(t * t * c)(h2).reshape(b, h // t, w // t, t, t, c)
        return made.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape)


config = jdiff.TrainConfig(steps=50 if TINY else 3000, batch_size=128, schedule="cosine")
result = jdiff.train(Patches(), data, config, key=key, run_dir=out / "patches")
samples = jdiff.sample(result.denoiser, key, N, solver="heun")
evaluation = jdiff.study.evaluate(samples, data, result.denoiser, names=names, features=())
print(evaluation)

# %% [markdown]
# How far does it look? Never past its tile, whatever the noise; and it tells training images from
# others (psnr_gap) as little as a network that sees sixteen pixels can.

# %%
for name in ("locality_profile 95%", "psnr_gap"):
    if name in evaluation.measures:
        print(evaluation.measures[name])

# %% [markdown]
# ## Beside others
#
# Registered under a name, the module is an architecture like `unet` or `mlp`: in studies, with
# options in its string, trained over several seeds, loaded from its run. (Another process
# registers it again before it loads such a run.)

# %%
jdiff.networks.register("patches", Patches)
study = jdiff.study.Study(
    name="mine",
    architectures=("linear", "patches")
    if TINY
    else ("optimal", "linear", "patches", "patches:tile=2", "mlp"),
    budget=jdiff.study.Budget(20 if TINY else 1500),
    seeds=(0, 1),
    num_samples=N,
    interpret=not TINY,
)
rows = jdiff.study.run(study, out / "study")
jdiff.report.show(rows)

# %% [markdown]
# ## An nnx module
#
# Flax's other interface keeps its parameters in the object. Its bridge makes a linen module of the
# class, which is trained, saved and measured like any other.


# %%
class Small(nnx.Module):
    """Two dense layers over all pixels and the noise level."""

    def __init__(self, values, width, *, rngs):
        """Makes the layers."""
        self.inner = nnx.Linear(values + 1, width, rngs=rngs)
        self.outer = nnx.Linear(width, values, rngs=rngs)

    def __call__(self, x, c_noise, labels=None, train=False):
        """Returns something like x."""
        seen = jnp.concatenate([x.reshape(len(x), -1), c_noise[:, None]], axis=1)
        return self.outer(nnx.silu(self.inner(seen))).reshape(x.shape)


bridged = nnx.bridge.to_linen(Small, values=8 * 8, width=256)
result = jdiff.train(bridged, data, config, key=key)
samples = jdiff.sample(result.denoiser, key, N, solver="heun")
evaluation = jdiff.study.evaluate(
    samples, data, result.denoiser, names=names, features=(), title="nnx", progress=False
)
print(evaluation)
jdiff.report.write_evaluation(out / "nnx.html", evaluation.record, evaluation.arrays)

# %% [markdown]
# The pages, with all figures: of the function, of the nnx module, of the study.

# %%
print(out / "shrink.html", out / "nnx.html", out / "study" / "report.html", sep="\n")
