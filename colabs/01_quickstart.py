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
# # jdiff: copies, creations or nonsense?
#
# What does a denoiser's architecture make a diffusion model generate? The Bayes-optimal denoiser of
# a training set gives that training set back; creativity comes from the architecture. Here four
# architectures learn scikit-learn's digits, are sampled from the same noise, and are judged.
#
# Runs on a TPU, a GPU or a CPU (a single chip is enough).

# %%
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

# Where jdiff comes from: a package name, a git address or a folder.
SOURCE = os.environ.get("JDIFF_SOURCE", "jdiff-jax")
# "tiny" shows in half a minute that everything runs; "" trains in earnest (minutes).
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
import dataclasses
from pathlib import Path

import jax

import jdiff

print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)
if jax.default_backend() == "cpu":
    print("This is a CPU: fine for digits. Colab's Runtime menu offers GPUs and TPUs.")

# %%
if USE_DRIVE:
    from google.colab import drive  # pyright: ignore[reportMissingImports]

    drive.mount("/content/drive")
    out = Path("/content/drive/MyDrive/jdiff/demo")
else:
    out = Path(tempfile.mkdtemp()) / "demo"

# %% [markdown]
# ## Four architectures, one noise
#
# `optimal` is the posterior mean over the training set, `linear` the Wiener filter, `unet` and
# `mlp` are trained. Started again, a study skips what is done.

# %%
study = jdiff.study.PRESETS["demo"]
if BUDGET == "tiny":
    study = dataclasses.replace(study.tiny(), architectures=("optimal", "linear", "mlp"))
rows = jdiff.study.run(study, out)

# %%
jdiff.report.show(rows)

# %% [markdown]
# ## The same by hand
#
# Everything is a denoiser, a function of a noisy image and its noise level: `denoiser(y, sigma)`.

# %%
data = jdiff.data.load("digits")
optimal = jdiff.OptimalDenoiser.fit(data.images)
linear = jdiff.LinearDenoiser.fit(data.images)
key = jax.random.key(0)
for name, denoiser in (("optimal", optimal), ("linear", linear)):
    samples = jdiff.sample(denoiser, key, 64, solver="heun")
    measure = jdiff.metrics.memorized_fraction(samples, data.images, data.held_out)
    print(f"{name}: {measure}")

# %% [markdown]
# The page with all figures is `report.html` in the folder below.

# %%
print(out / "report.html")
