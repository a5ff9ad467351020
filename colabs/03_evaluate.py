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
# # Judge samples from elsewhere
#
# A generative model gave you images. Are they **copies** of its training set, **creations**, or
# **nonsense**? No single number says so: a model that copies has the best Fréchet distance, and the
# mean image has precision 1. `jdiff evaluate` takes every measure beside the same number for real
# held-out images, its control, and gives one word with the numbers that decided.
#
# Bring an npz with `images`, or a folder of PNG or JPEG files, and the data that the model was
# trained on. Runs on a TPU, a GPU or a CPU.

# %%
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

# Where jdiff comes from: a package name, a git address or a folder.
SOURCE = os.environ.get("JDIFF_SOURCE", "jdiff-jax")
# "tiny" shows that everything runs; "" measures in earnest (a few minutes).
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

import jax
import matplotlib.pyplot as plt
import numpy as np

import jdiff

N = 60 if BUDGET == "tiny" else 360
WORK = Path(tempfile.mkdtemp())
print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)

# %% [markdown]
# ## Three models that somebody else made
#
# For want of yours, three stand-ins whose answers are known: one returns training images, a little
# disturbed; one draws from the Gaussian with the training set's mean and covariance; one returns
# real digits that the training set does not hold, which no measure may call a copy.

# %%
data = jdiff.data.load("digits")
rng = np.random.default_rng(0)
chosen = data.images[rng.integers(0, data.num_train, N)]
disturbed = np.clip(chosen + rng.normal(0, 4, chosen.shape), 0, 255).astype(np.uint8)
law = jdiff.theory.continuous_law(jdiff.LinearDenoiser.fit(data.images), sigma_max=80.0)
models = {
    "copies": disturbed,
    "gaussian": np.asarray(law.sample(jax.random.key(0), N)),
    "real": data.held_out[:N],
}
for name, images in models.items():
    np.savez(WORK / f"{name}.npz", images=images)

# %% [markdown]
# ## Evaluate
#
# The same as `jdiff evaluate --samples copies.npz --data digits --out evaluated/copies` on the
# command line. At a tiny budget only the measures that the verdict reads are taken.

# %%
names = ("memorized_fraction", "precision", "frechet_distance") if BUDGET == "tiny" else None
features = () if BUDGET == "tiny" else None
found = {}
for name in models:
    found[name] = jdiff.study.evaluate_samples(
        WORK / f"{name}.npz",
        "digits",
        WORK / "evaluated" / name,
        names=names,
        features=features,
        progress=False,
    )
    print(f"== {name}: {found[name].verdict.word}. {found[name].verdict.reason}\n")

# %% [markdown]
# All measures of one of them; in brackets the 95 % interval, beside it the control.

# %%
print(found["copies"])

# %% [markdown]
# ## Look before you believe
#
# d1/d2 is the distance to the nearest training image over that to the second nearest. A copy lies
# far nearer to its source than to anything else: below 1/3 it counts as one. The outline is what
# real held-out images have.

# %%
figure, panels = plt.subplots(1, len(found), figsize=(12, 3), sharex=True, sharey=True)
bins = np.linspace(0, 1, 31)
for panel, (name, one) in zip(panels, found.items(), strict=True):
    panel.hist(one.arrays["ratio"], bins, density=True, color="#0077bb", alpha=0.6)
    panel.hist(one.arrays["held_out_ratio"], bins, density=True, histtype="step", color="black")
    panel.axvline(1 / 3, color="#cc3311", lw=1)
    panel.set_title(f"{name}: {one.verdict.word}")
    panel.set_xlabel("d1 / d2")
plt.tight_layout()
plt.show()

# %% [markdown]
# The most copied samples above, the training images nearest to them below.

# %%
figure, panels = plt.subplots(2 * len(found), 1, figsize=(12, 1.1 * 2 * len(found)))
for (name, one), rows in zip(found.items(), panels.reshape(-1, 2), strict=True):
    for panel, what in zip(rows, ("copied", "copied_source"), strict=True):
        framed = np.pad(one.arrays[what], ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=1)
        panel.imshow(np.concatenate(framed, axis=1)[..., 0], cmap="gray", vmin=-1, vmax=1)
        panel.set_axis_off()
        panel.set_title(f"{name}: {'samples' if what == 'copied' else 'sources'}", fontsize=9)
plt.tight_layout()
plt.show()

# %% [markdown]
# Each folder also holds a page of its own, `evaluation.html`, with the sheets, the mosaic maps and
# the spectra, and `evaluation.json` with all numbers.

# %%
for file in sorted((WORK / "evaluated").rglob("evaluation.*")):
    print(file.relative_to(WORK), f"{file.stat().st_size:,} bytes")
