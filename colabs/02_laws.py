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
# ones see finitely many moments (their law is known in one dimension), **bottlenecks** stay on what
# the code can say. `jdiff.theory.law` predicts; here the predictions are held against samples.
#
# Runs on a TPU, a GPU or a CPU (a single chip is enough).

# %%
import dataclasses
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
edges = np.linspace(-4, 4, 61)
middles = (edges[1:] + edges[:-1]) / 2
normal = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi)
for column, degree in enumerate(degrees):
    points, weights = gauss_hermite(degree)
    polynomial = PolynomialDenoiser.fit(points, degree, SIGMAS, weights=weights)
    law = theory.law(polynomial, SIGMAS)
    start, other = jax.random.split(jax.random.fold_in(key, degree))
    samples = np.asarray(jdiff.sample(polynomial, start, 4 * N, sigmas=SIGMAS))
    copies = np.asarray(jdiff.sample(OptimalDenoiser.fit(points, weights), other, N, sigmas=SIGMAS))
    verdict = law.check(samples)
    said = "obeyed" if verdict.passed else f"REJECTED by {', '.join(verdict.failed)}"
    print(
        f"degree {degree}: the law is {said}; variance of the samples {samples.var():.3f}, "
        f"by the law {law.covariance[0, 0]:.3f}"
    )
    above, below = panels[:, column]
    above.hist(samples.ravel(), edges, density=True, color="#33bbee", alpha=0.6)
    above.plot(middles, law.density(edges), color="#0077bb", label="the law")
    above.plot(middles, normal, "--", color="#ee7733", label="N(0, 1)")
    above.set_title(f"{degree + 1} points, degree {degree}")
    below.hist(copies.ravel(), edges, density=True, color="#cc3311", alpha=0.8)
    below.plot(points.ravel(), 0 * points.ravel(), "^", color="black", clip_on=False)
panels[0, 0].set_ylabel("polynomial")
panels[1, 0].set_ylabel("optimal")
panels[0, 0].legend(frameon=False, fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# The law is that of the 18 steps that were taken, and they are coarse: its variance is below 1.
# With more steps it comes nearer to the normal curve.
#
# What a polynomial cannot see does not matter. Three and eight Gauss-Hermite points look nothing
# alike, but agree in all moments up to order 4: at degree 2 one law holds for both. Other three
# points with another third moment do not obey it.

# %%
moments = np.array([1.0, 0, 1, 1, 3, 3])  # of order 0 to 5; of a Gaussian the third would be 0
hankel = moments[np.add.outer(range(3), range(3))]
third = np.sort(np.roots([1, *np.linalg.solve(hankel, -moments[3:])[::-1]]))
third_weights = np.linalg.solve(np.vander(third, 3, increasing=True).T, moments[:3])
targets = {
    "A: three points": gauss_hermite(2),
    "B: eight points, the same four moments": gauss_hermite(7),
    "C: three points, another third moment": (third.reshape(-1, 1, 1, 1), third_weights),
}
fits = {name: PolynomialDenoiser.fit(x, 2, SIGMAS, weights=w) for name, (x, w) in targets.items()}
law_of_a = theory.law(fits["A: three points"], SIGMAS)
for number, (name, denoiser) in enumerate(fits.items()):
    samples = jdiff.sample(denoiser, jax.random.key(100 + number), 4 * N, sigmas=SIGMAS)
    verdict = law_of_a.check(samples)
    said = "obeyed" if verdict.passed else f"rejected by {', '.join(verdict.failed)}"
    print(f"{name}: the law of A is {said}")

# %% [markdown]
# ## Linear denoisers generate a Gaussian
#
# Each class of linear denoisers keeps another part of the data's mean and covariance: all of it,
# its leading axes, correlations within a window, or the power spectrum. The check compares means,
# variances along the predicted axes, their shapes, and the radius of the samples. A p-value is the
# chance of a statistic at least as far off if the law is right; samples of the law itself fail some
# test with probability alpha = 0.01. The whole table is printed for the first class, one line for
# each of the others.

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
    samples = jdiff.sample(denoiser, jax.random.key(len(strips) + 10), N, sigmas=SIGMAS)
    verdict = law.check(samples, train=digits.images, held_out=digits.held_out)
    print(verdict if not strips else f"{name}: {str(verdict).splitlines()[0]}")
    kept = law.eigenvalues > 1e-6 * law.eigenvalues[0]
    predicted, measured = law.eigenvalues[kept], law.coordinates(samples)[:, kept].var(0, ddof=1)
    panel.loglog(predicted, predicted, color="gray", lw=0.8)
    panel.loglog(predicted, measured, ".", color="#0077bb")
    panel.set_title(name)
    panel.set_xlabel("predicted variance")
    strips[name] = np.asarray(samples[:8]), np.asarray(law.sample(jax.random.key(1), 8))
panels[0].set_ylabel("variance of samples")
plt.tight_layout()
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
# Yet the training set is no sample of it, and the check says so: its radii, the whitened norms, are
# distributed otherwise, and the nearest training image of each of its images is that image.

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
toy = jdiff.data.load("toy:two_moons")
moons = toy.images[:120]
network = jdiff.networks.BottleneckMLP(code_dim=1)
config = jdiff.TrainConfig(steps=60 if BUDGET == "tiny" else 4000, learning_rate=2e-3)
data = jdiff.data.from_arrays(moons, held_out=toy.held_out)
trained = jdiff.train(network, data, config, key=key)
bottlenecks = {
    "linear, linear": BottleneckDenoiser.fit(moons, 1),
    "linear code, posterior": BottleneckDenoiser.fit(moons, 1, decoder="posterior"),
    "posterior code, linear": BottleneckDenoiser.fit(moons, 1, code="posterior"),
    "trained network": trained.denoiser,
}
figure, panels = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True)
for panel, (name, denoiser) in zip(panels.flat, bottlenecks.items(), strict=True):
    samples = jdiff.sample(denoiser, jax.random.key(20), 500, sigmas=SIGMAS)
    if name != "trained network":
        verdict = theory.law(denoiser, SIGMAS).check(samples)
        print(f"{name}: {str(verdict).splitlines()[0]}")
    samples = np.asarray(samples).reshape(-1, 2)
    panel.plot(*moons.reshape(-1, 2).T, ".", color="lightgray")
    panel.plot(*samples.T, ".", ms=3, color="#ee7733")
    panel.set_title(name)
    panel.set_aspect("equal")
plt.tight_layout()
plt.show()

# %% [markdown]
# Of a trained network the law is not known in closed form, but a bound is: where the last step
# starts, its Jacobian has no more rank than the code has numbers. The same network under another
# preconditioning leads the noisy image round the code, and the bound is broken.

# %%
last = float(SIGMAS[-2])
start = SIGMAS[0] * jax.random.normal(jax.random.key(30), (8, 1, 1, 2))
_, way = jdiff.sampling.solve(trained.denoiser, start, SIGMAS, record=("y",))
round_it = dataclasses.replace(trained.denoiser, preconditioning="edm")
for denoiser in (trained.denoiser, round_it):
    print(denoiser.preconditioning, theory.check_rank(denoiser, way["y"][-1], last, rank=1))

# %% [markdown]
# ## From linear to optimal
#
# Four points in the plane, and polynomials of growing degree: the distance to the linear law grows,
# and with it the share of samples that are copies. Draws of the linear law lie near one of so few
# points by chance, too: that is the floor.

# %%
four = np.random.default_rng(0).normal(0, 0.5, (4, 1, 1, 2)).astype(np.float32)
fresh = np.random.default_rng(1).normal(0, 0.5, (500, 1, 1, 2)).astype(np.float32)
rows = lambda x: np.asarray(x, np.float32).reshape(len(x), -1)
linear_law = theory.law(LinearDenoiser.fit(four), SIGMAS)
copies = lambda x: jdiff.metrics.memorized_fraction(rows(x), rows(four), rows(fresh)).value
print(f"linear law: copies {copies(linear_law.sample(jax.random.key(40), 500)):.2f} by chance")
sweep = {f"degree {k}": PolynomialDenoiser.fit(four, k, SIGMAS) for k in (1, 2, 3, 5, 7)}
sweep["optimal"] = OptimalDenoiser.fit(four)
figure, panel = plt.subplots(figsize=(6, 4))
for name, denoiser in sweep.items():
    samples = np.asarray(jdiff.sample(denoiser, jax.random.key(41), 500, sigmas=SIGMAS))
    # Outside the data a polynomial explodes; what left is counted, and left out of both numbers.
    near = np.linalg.norm(rows(samples), axis=1) < 10
    x, y = linear_law.distance(samples[near]), copies(samples[near])
    print(f"{name}: distance {x:.2f}, copies {y:.2f}, escaped {int((~near).sum())} of 500")
    panel.plot(x, y, "o", color="#0077bb")
    panel.annotate(name, (x, y), (5, 5), textcoords="offset points", fontsize=9)
panel.set_xlabel("distance to the linear law")
panel.set_ylabel("memorized fraction")
plt.tight_layout()
plt.show()

# %% [markdown]
# The whole of it, for every family, with a page: `jdiff study laws`.
