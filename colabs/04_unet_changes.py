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
# # Small changes of a UNet
#
# Levine and Weiss 2026 ([arXiv 2605.16415](https://arxiv.org/abs/2605.16415)) report that small
# changes of a UNet, such as its padding or its skips, give very different samples, often
# unrealistic ones. Here one UNet is trained, and then the same UNet with one thing changed at a
# time: the same data, the same budget, the same starting noise, three training seeds each, so that
# a difference between two architectures can be told from one between two trainings of the same.
#
# In earnest this takes about twenty minutes on two CPU cores, much less on a GPU or TPU.

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
import matplotlib.pyplot as plt
import numpy as np

import jdiff

print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)

# %% [markdown]
# ## The study
#
# A study is a frozen dataclass: data, architectures, training sizes, seeds, budget. The preset
# names twelve architectures as strings; leave out, add or change what you like. On the command
# line it is `jdiff study unet-changes`. `PRESETS["unet-changes-28"]` is the same for Fashion-MNIST.

# %%
study = jdiff.study.PRESETS["unet-changes"]
if BUDGET == "tiny":
    names = (
        "mlp:width=16,depth=2",
        "mlp:width=32,depth=2",
    )  # no UNet: compiling them takes a minute
    study = dataclasses.replace(
        study.tiny(), architectures=names, seeds=(0, 1), budget=jdiff.study.Budget(20)
    )
for name in study.architectures:
    print(name)

# %%
if USE_DRIVE:
    from google.colab import drive  # pyright: ignore[reportMissingImports]

    drive.mount("/content/drive")
    out = Path("/content/drive/MyDrive/jdiff/unet-changes")
else:
    out = Path(tempfile.mkdtemp()) / "unet-changes"

# %%
rows = jdiff.study.run(study, out)

# %% [markdown]
# ## What came out
#
# One line an architecture: verdicts, and each measure with its range over the training seeds,
# beside the same number for real held-out images. Stopped and run again, the cell above goes on
# where it was, after a lost runtime too if the folder is in Drive.

# %%
claims = jdiff.study.claims.of(study.claims, [row.record for row in rows])
jdiff.report.show(rows, claims=claims)

# %% [markdown]
# The study holds two sentences of the literature against its rows, and says so where they do not
# hold. Each with its numbers:

# %%
for claim in claims:
    word = {True: "shown", False: "not shown", None: "cannot be told"}[claim["shown"]]
    print(f"{word}: {claim['claim']}\n    {claim['evidence']}\n")

# %% [markdown]
# ## What explains a network?
#
# Every network is held against four closed forms: the optimal denoiser (copies), the linear one (a
# Gaussian), the local linear one (a Gaussian without long-range correlations) and the equivariant
# linear one (a texture). Pearson's r of its samples with theirs, all from one noise:

# %%
forms = ["optimal", "linear", "local_linear 5", "equivariant_linear"]
of_first_seed = [row for row in rows if row.record["seed"] == study.seeds[0]]
trained = [row for row in of_first_seed if row.measure("psnr_gap")]  # networks that did not fail
r = np.array(
    [
        [row.measure(f"explained_by samples of {form} pearson_r")["value"] for form in forms]
        for row in trained
    ]
)
fig, ax = plt.subplots(figsize=(7, 0.4 * len(trained) + 1), layout="constrained")
for i, form in enumerate(forms):
    ax.plot(r[:, i], range(len(trained)), "o", label=form)
ax.set_yticks(range(len(trained)), [row.label for row in trained])
ax.invert_yaxis()
ax.set_xlabel("Pearson's r between samples from the same noise")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
plt.show()

# %% [markdown]
# ## The page
#
# `report.html` in the folder below stands alone: sample grids, nearest training images, learning
# curves, how far each network sees at each noise level.

# %%
print(out / "report.html")
