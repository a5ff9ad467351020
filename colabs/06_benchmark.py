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
# # The frontier: what does speed buy?
#
# Every architecture here trains for the same number of steps on the same images, and is sampled
# from the same noise. Then two questions are asked at once: how fast does it train and sample on
# *this* device, and what does it make: copies, creations or nonsense?
#
# From a checkout, `python -m benchmarks frontier` asks the same of more architectures, and keeps
# the results; here everything is in sight.

# %%
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

# Where jdiff comes from: a package name, a git address or a folder.
SOURCE = os.environ.get("JDIFF_SOURCE", "jdiff-jax")
# "tiny" shows that everything runs; "" measures in earnest.
BUDGET = os.environ.get("JDIFF_BUDGET", "")
# On Colab: keep the results in your Google Drive.
USE_DRIVE = False

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
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jdiff

print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)

# %%
if USE_DRIVE:
    from google.colab import drive  # pyright: ignore[reportMissingImports]

    drive.mount("/content/drive")
    out = Path("/content/drive/MyDrive/jdiff/frontier")
else:
    out = Path(tempfile.mkdtemp()) / "frontier"

# %% [markdown]
# ## The device's peak
#
# A share of the peak (MFU, model FLOP/s over those of a large matmul) says how much of the
# hardware a network uses. It is measured here, at the precision that networks have by default.

# %%
side = 256 if BUDGET == "tiny" else 1536 if jax.default_backend() == "cpu" else 8192
multiply = jax.jit(lambda a: a @ a)
a = jax.random.normal(jax.random.key(0), (side, side), jnp.float32)
multiply(a).block_until_ready()
times = []
for _ in range(7):
    started = time.perf_counter()
    multiply(a).block_until_ready()
    times.append(time.perf_counter() - started)
peak = 2 * side**3 / min(times) * jax.device_count()
print(f"{peak / 1e12:.3g} TFLOP/s")

# %% [markdown]
# ## The study
#
# Three training seeds each, so that a difference between two architectures can be told from one
# between two trainings. Stopped and run again, it goes on where it was: within this runtime from
# `out`, and after a new one if `USE_DRIVE` keeps that folder.

# %%
if BUDGET == "tiny":
    architectures = ("optimal", "linear", "mlp:width=16,depth=2")
    seeds, budget, samples = (0, 1), jdiff.study.Budget(20), 40
else:
    architectures = (
        "optimal",
        "linear",
        "local_linear:patch_size=3",
        "unet:width=16,levels=2",
        "unet:width=16,levels=2,skips=false",
        "resnet:width=32,depth=2",
        "mlp:width=32",
        "mlp:width=400",
        "bottleneck_mlp",
    )
    seeds, budget, samples = (0, 1, 2), jdiff.study.Budget(1000), 256
study = jdiff.study.Study(
    name="frontier",
    data="digits",
    architectures=architectures,
    num_train=(300,),
    seeds=seeds,
    budget=budget,
    batch_size=64,
    num_samples=samples,
)
rows = jdiff.study.run(study, out)

# %% [markdown]
# ## One line an architecture
#
# *Novelty* is the distance to the nearest training image over that of images which were never
# seen: 0 is a copy, 1 as new as new images are. *Realism* is the share of samples among the
# training images' neighbours, again over that of images never seen.


# %%
def over_control(one, name):
    """A measure over the same of held-out images: mean, smallest, largest; NaN where that is 0."""
    control = one.spread("measures", name, "control").mean or np.nan
    return np.array(one.spread("measures", name, "value")[:3], float) / control


lines = []
print(
    f"{'':36}{'memorized':>10}{'novelty':>9}{'realism':>9}{'train/s':>10}{'MFU':>7}{'samples/s':>11}"
)
for one in jdiff.report.group(rows):
    if not one.runs:
        print(f"{one.name:36}failed: {one.rows[0].error}")
        continue
    memorized = one.spread("measures", "memorized_fraction", "value")
    novelty, realism = over_control(one, "nearest_rms"), over_control(one, "precision")
    train, drawn = (one.spread("images_per_s", what).mean for what in ("train", "sample"))
    speed = f"{'':17}"
    if train is not None:  # a network: a step takes three times the FLOPs of an evaluation
        mfu = 3 * one.runs[0].record["flops_per_image"] * train / peak
        speed = f"{train:10,.0f}{mfu:7.1%}"
    if np.isfinite(realism[0]):
        lines.append((one.name, memorized, realism, drawn, one.counts[0][0]))
    print(
        f"{one.name:36}{memorized.mean:10.2f}{novelty[0]:9.2f}{realism[0]:9.2f}{speed}"
        f"{drawn:11,.0f}  {one.said}"
    )

# %% [markdown]
# ## The picture
#
# Copies lie at the right, creations above at the left, nonsense below at the left. The area of a
# point grows with its samples a second; its bars are the range over training seeds.

# %%
colors = {
    "memorizes": "#a63a0b",
    "creates": "#1b7f5a",
    "unrealistic": "#69707a",
    "mixed": "#8a6d1b",
}
figure, axes = plt.subplots(figsize=(8.5, 4.8))
for label, memorized, realism, drawn, word in lines:
    color = colors[word]
    axes.plot([memorized.low, memorized.high], [realism[0]] * 2, color=color, lw=1)
    axes.plot([memorized.mean] * 2, realism[1:], color=color, lw=1)
    area = 40 + 80 * max(0.0, np.log10(drawn))
    axes.scatter(memorized.mean, realism[0], s=area, color=color, alpha=0.5)
    right = memorized.mean > 0.5
    axes.annotate(
        f"{label}: {word}",
        (memorized.mean, realism[0]),
        (-14 if right else 14, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=color,
        fontsize=8,
    )
axes.set_xlim(-0.06, 1.06)
axes.set_ylim(-0.07, 1.25)
axes.set_xlabel("memorized fraction of the samples")
axes.set_ylabel("realism: precision over that of held-out images")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# The page of the study, with the samples themselves, is in `out`. Which pictures would you have
# called copies, creations, nonsense?

# %%
jdiff.report.show(rows)
