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
# # The laws: what an architecture must generate
#
# For three families of denoisers the distribution of generated samples is an explicit function of
# the training data and the architecture: **linear** denoisers generate a Gaussian, **polynomial**
# ones see finitely many moments, **bottlenecks** stay on what the code can say. `jdiff.theory.law`
# predicts; here the predictions are held against samples.
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
# "tiny" shows in half a minute that everything runs; "" draws in earnest (minutes).
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
import jax
import matplotlib.pyplot as plt
import numpy as np

import jdiff
from jdiff import noise, theory
from jdiff.denoisers import (
    BottleneckDenoiser,
    EquivariantLinearDenoiser,
    LinearDenoiser,
    LocalLinearDenoiser,
    OptimalDenoiser,
    PolynomialDenoiser,
)

N = 300 if BUDGET == "tiny" else 2000
SIGMAS = noise.karras(18)
key = jax.random.key(0)
print("jax", jax.__version__, "on", jax.device_count(), jax.devices()[0].device_kind)

# %% [markdown]
# ## A few points become a continuum
#
# A polynomial denoiser of degree k depends on its data only through moments up to order 2k. Four
# weighted Gauss-Hermite points have the moments of a Gaussian up to order 7: trained on these four
# *points*, a denoiser of degree 3 generates a Gaussian. The optimal denoiser, on the same points,
# gives the points back.


# %%
def gauss_hermite(degree):
    """degree + 1 points and weights with the moments of N(0, 1) up to order 2 degree + 1."""
    points, weights = np.polynomial.hermite_e.hermegauss(degree + 1)
    return points.reshape(-1, 1, 1, 1), weights / weights.sum()


degrees = (1, 2, 3, 5)
figure, panels = plt.subplots(2, len(degrees), figsize=(13, 5), sharex=True)
edges = np.linspace(-4, 4, 81)
for column, degree in enumerate(degrees):
    points, weights = gauss_hermite(degree)
    polynomial = PolynomialDenoiser.fit(points, degree, SIGMAS, weights=weights)
    law = theory.law(polynomial, SIGMAS)
    samples = np.asarray(jdiff.sample(polynomial, key, 4 * N, sigmas=SIGMAS))
    copies = np.asarray(jdiff.sample(OptimalDenoiser.fit(points, weights), key, N, sigmas=SIGMAS))
    verdict = law.check(samples)
    print(f"degree {degree}: the law is {'obeyed' if verdict.passed else 'REJECTED'}")
    above, below = panels[:, column]
    above.hist(samples.ravel(), edges, density=True, color="#33bbee", alpha=0.6)
    above.plot((edges[1:] + edges[:-1]) / 2, law.density(edges), color="#0077bb")
    above.set_title(f"{degree + 1} points, degree {degree}")
    below.hist(copies.ravel(), edges, density=True, color="#cc3311", alpha=0.8)
    below.plot(points.ravel(), 0 * points.ravel(), "^", color="black", clip_on=False)
panels[0, 0].set_ylabel("polynomial")
panels[1, 0].set_ylabel("optimal")
plt.show()

# %% [markdown]
# ## Linear denoisers generate a Gaussian
#
# Each class of linear denoisers keeps another part of the data's mean and covariance: all of it,
# its leading axes, correlations within a window, or the power spectrum. The check compares means,
# variances along the predicted axes, their shapes, and the radius of the samples.

# %%
digits = jdiff.data.load("digits")
denoisers = {
    "linear": LinearDenoiser.fit(digits.images),
    "rank 8": LinearDenoiser.fit(digits.images, rank=8),
    "local 3 x 3": LocalLinearDenoiser.fit(digits.images, patch_size=3),
    "equivariant": EquivariantLinearDenoiser.fit(digits.images),
}
figure, panels = plt.subplots(1, len(denoisers), figsize=(13, 3.2))
strips = {}
for panel, (name, denoiser) in zip(panels, denoisers.items(), strict=True):
    law = theory.law(denoiser, SIGMAS)
    samples = jdiff.sample(denoiser, key, N, sigmas=SIGMAS)
    print(law.check(samples, train=digits.images, held_out=digits.held_out), "\n")
    kept = law.eigenvalues > 1e-6 * law.eigenvalues[0]
    predicted, measured = law.eigenvalues[kept], law.coordinates(samples)[:, kept].var(0, ddof=1)
    panel.loglog(predicted, predicted, color="gray", lw=0.8)
    panel.loglog(predicted, measured, ".", color="#0077bb")
    panel.set_title(name)
    panel.set_xlabel("predicted variance")
    strips[name] = np.asarray(samples[:8]), np.asarray(law.sample(jax.random.key(1), 8))
panels[0].set_ylabel("variance of samples")
plt.show()

# %% [markdown]
# To the left eight samples, to the right eight draws of the predicted law: of one kind, row by row.

# %%
figure, panels = plt.subplots(len(strips), 2, figsize=(13, 1.0 * len(strips)))
for row, (name, pair) in zip(panels, strips.items(), strict=True):
    for panel, images, what in zip(row, pair, ("samples", "draws of the law"), strict=True):
        framed = np.pad(images[..., 0], ((0, 0), (0, 0), (0, 2)), constant_values=1)
        strip = np.concatenate(framed, axis=1)
        panel.imshow(strip, cmap="gray", vmin=-1, vmax=1)
        panel.set_title(f"{name}: {what}", fontsize=9)
        panel.set_axis_off()
plt.tight_layout()
plt.show()

# %% [markdown]
# In the limit of a fine grid the linear law has the mean and the covariance of the training set.
# Yet the training set is no sample of it, and the check says so: among other things its radius, the
# whitened norm, is another, and its nearest training images are itself.

# %%
law = theory.continuous_law(denoisers["linear"], sigma_max=80.0)
train = digits.images[:N].astype(np.float32) / 127.5 - 1
verdict = law.check(train, train=digits.images, held_out=digits.held_out)
print(verdict)
assert {"radius", "nearest"} <= set(verdict.failed)

# %% [markdown]
# ## Bottlenecks
#
# In the plane, through one number. A linear code with a linear decoder: a Gaussian on a line. A
# linear code with the best decoder: copies of the training points. The best denoiser of the code
# with a linear decoder: training points projected on the line, new as points, copies in the code.
# A trained network with a narrow layer: samples on the curve that its decoder can draw.

# %%
moons = jdiff.data.load("toy:two_moons").images[:120]
network = jdiff.networks.BottleneckMLP(code_dim=1)
config = jdiff.TrainConfig(steps=60 if BUDGET == "tiny" else 4000, learning_rate=2e-3)
trained = jdiff.train(network, jdiff.data.from_arrays(moons, held_out=moons), config, key=key)
bottlenecks = {
    "linear, linear": BottleneckDenoiser.fit(moons, 1),
    "linear code, posterior": BottleneckDenoiser.fit(moons, 1, decoder="posterior"),
    "posterior code, linear": BottleneckDenoiser.fit(moons, 1, code="posterior"),
    "trained network": trained.denoiser,
}
figure, panels = plt.subplots(1, 4, figsize=(13, 3.4), sharex=True, sharey=True)
for panel, (name, denoiser) in zip(panels, bottlenecks.items(), strict=True):
    samples = np.asarray(jdiff.sample(denoiser, key, 500, sigmas=SIGMAS)).reshape(-1, 2)
    panel.plot(*moons.reshape(-1, 2).T, ".", color="lightgray")
    panel.plot(*samples.T, ".", ms=3, color="#ee7733")
    panel.set_title(name)
    panel.set_aspect("equal")
plt.show()

rank = theory.jacobian_rank(trained.denoiser, samples[:5].reshape(-1, 1, 1, 2), float(SIGMAS[-2]))
print("rank of the trained denoiser's Jacobian at the last level:", rank)

# %% [markdown]
# The whole of it, for every family, with a page: `jdiff study laws`.
