"""The words of the page of the study `laws`: what each section shows, what each test compares."""

from dataclasses import dataclass

# A mark of a figure's key: its shape (bar, line, dash, ring, dot), its colour in CSS, its meaning.
Mark = tuple[str, str, str]
_SAMPLES, _LAW = ("#0077bb", "var(--ink)")
_DASHED, _COPY, _GREY = ("#ee7733", "var(--copy)", "var(--rule)")


@dataclass(frozen=True)
class Words:
    """A section's title, the paragraph on how to read it, and the key of its marks."""

    title: str
    read: str
    key: tuple[Mark, ...] = ()


SECTIONS = {
    "star": Words(
        "A few points in, a continuum out",
        "Every column has its own training set: k + 1 weighted points, those of Gauss–Hermite "
        "quadrature, whose moments up to order 2k + 1 are a normal distribution’s. The optimal "
        "denoiser gives back these points (above). A polynomial denoiser of degree k sees nothing "
        "of its training set but the moments up to order 2k, and these few points have a "
        "Gaussian’s: so it generates a Gaussian that nobody showed it (below). The predicted "
        "density is a little narrower than the normal one: so coarse are the steps of the sampler, "
        "and the prediction knows it.",
        (
            ("ring", _LAW, "training points, as high as their weights"),
            ("bar", _COPY, "samples of the optimal denoiser"),
            ("bar", _SAMPLES, "samples of the polynomial denoiser"),
            ("line", _LAW, "their predicted density"),
            ("dash", _DASHED, "normal density"),
        ),
    ),
    "two_points": Words(
        "The more degrees, the nearer to copying",
        "The training set is two points, −1 and +1. At degree 1 the samples are Gaussian; with "
        "every odd degree more they gather at the two points and fewer lie between (the axis is "
        "logarithmic; on symmetric data an even degree adds nothing); in the limit stands the "
        "optimal denoiser, which returns the points. Outside the data a polynomial explodes: some "
        "samples escape. They belong to the prediction, and are counted beside it.",
        (
            ("bar", _SAMPLES, "samples"),
            ("line", _LAW, "predicted density"),
            ("bar", _COPY, "samples of the optimal denoiser"),
            ("ring", _LAW, "training points (ticks, or circles at their weights)"),
        ),
    ),
    "moments": Words(
        "What a polynomial cannot see does not matter",
        "Three training sets for one degree k. A and B look nothing alike but agree in all "
        "moments up to order 2k: their samples have one and the same distribution, and those of B "
        "are tested against the law of A. In C one moment is another, and so are the samples. "
        "Dashed in every panel: what is predicted for the first.",
        (
            ("ring", _LAW, "training points, as high as their weights"),
            ("bar", _SAMPLES, "samples"),
            ("line", _LAW, "predicted density"),
            ("dash", _DASHED, "predicted density of the first"),
        ),
    ),
    "gaussian": Words(
        "Linear denoisers: every sample is a draw from a Gaussian",
        "Above, images that the sampler made; below, draws from the Gaussian law that is computed "
        "from the training images and the architecture, without sampling. The two strips show "
        "different noise, so compare their kind, not image with image. Rank, window and "
        "equivariance each leave their own mark: few axes, short range, no place.",
    ),
    "plane": Words(
        "What a bottleneck leaves of a picture in the plane",
        "Two-dimensional data pressed through one number, beside denoisers without a bottleneck. "
        "A filled ring is a copy of a training point. With a linear decoder all "
        "samples lie on the line of the code (dashed); with a posterior decoder they are training "
        "points or blends of those that share a code; a learned decoder bends the line into a "
        "curve.",
        (
            ("ring", _LAW, "training points"),
            ("dot", _SAMPLES, "samples"),
            ("dash", "var(--muted)", "line of the code"),
            ("dot", _DASHED, "where the decoder can end"),
        ),
    ),
    "atoms": Words(
        "Copies, and copies in the code",
        "Above, samples; below, the predicted atom nearest to each: a training image, or with a "
        "linear decoder a training image projected on the subspace of the code. Pairs should be "
        "equal. A projected image is new as an image, and yet a copy in the code.",
    ),
    "without_law": Words(
        "Where no law is known",
        "Samples of architectures whose distribution has no closed form, and why it has none. Of a "
        "learned bottleneck a bound is known and tested: the small curve shows the singular values "
        "of the denoiser’s Jacobian at the last noise level. Those beyond the size of the code "
        "(dashed) are rounding: the samples lie in a set of no more dimensions than the code has "
        "numbers. The same network with the noisy image led round it breaks the bound.",
    ),
    "sweep": Words(
        "From creation to copying",
        "Every line is a family of architectures, every point one setting of its knob: degree, "
        "rank, patch size or code size. To the left, the samples’ distribution is that of the full "
        "linear denoiser, as far as its axes tell; upwards, more samples are copies of training "
        "images. At the bottom right lie those that are neither: no copies, and not the linear "
        "denoiser’s Gaussian; random features of any degree end there. Points without a single "
        "copy stand below the axis, each family in its own lane. Shaded: distances that draws of "
        "the linear law have themselves. Dashed: the memorized fraction of held-out data, and, "
        "where it is not zero, of draws of the linear law: among few points some lie near one by "
        "chance.",
    ),
}
DIAGONAL = Words(
    "Predicted against measured",
    "The variance of the samples along each axis of the law, against the variance predicted for "
    "it, over all the orders of magnitude that the data spans; below, their ratio. Of a right "
    "law’s axes 95 of 100 lie in the grey band. Axes come from the law, never from the samples.",
    (
        ("dot", _SAMPLES, "one axis"),
        ("line", _LAW, "measured = predicted"),
        ("bar", _GREY, "95 % of a right law’s axes"),
    ),
)
KINDS = {
    "gaussian": "Gaussian laws",
    "push-forward": "Push-forward laws, in one dimension",
    "atoms": "Laws of atoms",
    "dimension": "Bounds on the dimension of the samples",
}
# In the order of the tables' columns.
TESTS = {
    "finite": "Samples that are numbers at all. One that overflowed counts against the law.",
    "escaped": "Share of samples that a polynomial has thrown far outside the data, beside the "
    "share that the law says will be; Fisher’s exact test.",
    "mean": "How far the samples’ mean lies from the predicted one, in the law’s own units: "
    "n dᵀC⁺d, against χ².",
    "covariance": "Squared distance between the samples’ covariance and the predicted one, along "
    "the leading axes, against what as many draws of the law show.",
    "variance": "Measured over predicted variance on the axis where they disagree most; its "
    "p-value is corrected for having looked at every axis.",
    "shape": "Kolmogorov–Smirnov distance between the samples and the predicted distribution, on "
    "the axis where they disagree most, with the predicted mean and variance.",
    "radius": "Squared distance of every sample from the mean, each axis in units of its predicted "
    "deviation, against χ². A Gaussian in many dimensions is a thin shell; real images lie inside "
    "it and outside. It rejects the training set even where mean and covariance are the law’s.",
    "leakage": "Share of the variance outside the axes that the law has.",
    "nearest": "Median distance to the nearest training image, against that of as many draws of "
    "the law. Samples that are copies fail it.",
    "at atoms": "Share of samples that lie at one of the predicted points, against that of draws "
    "of the law; Fisher’s exact test.",
    "distance": "How far the samples lie from the nearest predicted point, against draws of the "
    "law; Kolmogorov–Smirnov.",
    "frequencies": "How often each predicted point is the nearest, against draws of the law: half "
    "of the points alone, however exact, fail it; a permutation test.",
    "decoder": "Largest distance of a sample from what the decoder makes of the sample’s code.",
    "rank": "Largest rank of the denoiser’s Jacobian where the last step starts: the samples fill "
    "no more dimensions than that.",
    "on surface": "Distance of the samples to the predicted surface, over the data’s own.",
    "codes": "Kolmogorov–Smirnov distance between the samples’ codes and the predicted ones.",
}
DEFINITIONS = {
    "law": "The distribution that samples must have, computed from the training data, the "
    "architecture and the sampler’s grid of noise levels, without the sampler.",
    "obeys": "The samples passed every test of their law. Tests share one false-alarm rate: "
    "samples that do follow the law fail one of them with probability α.",
    "wrong laws": "A test that nothing can fail says nothing. So each law is also held against "
    "samples that are not its own, of about the same kind, such as the training images "
    "themselves: they must be rejected.",
    "p-value": "The chance of a statistic at least as far off if the law is right. It is held "
    "against α divided by the number of tests. A test without one leaves nothing to chance.",
    "push-forward law": "The distribution of T(σ₀z), z standard normal, where T is all steps of "
    "the sampler one after the other.",
    "atoms": "Points of which every sample must be one, up to blends of those whose codes nearly "
    "collide: with a code of one number nearly all are blends. How often they occur is computed by "
    "carrying draws through the grid, apart from the sampler.",
    "distance to the linear law": "Wasserstein-1 distance between the samples and the full linear "
    "denoiser’s law along each of its axes, in that axis’ standard deviations; the mean over axes. "
    "Its noise floor is what draws of the linear law have.",
}
