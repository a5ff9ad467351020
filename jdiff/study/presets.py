"""Named studies, for `jdiff study NAME`; every field can be overridden."""

from typing import Any

from jdiff.study.config import Budget, Study
from jdiff.study.laws import LawStudy

# What the four studies of one changed thing have in common: three trainings of every network, which
# is also held against the closed forms.
_CHANGES: dict[str, Any] = {
    "seeds": (0, 1, 2),
    "interpret": True,
    "num_samples": 256,
    "batch_size": 64,
}
_UNET = "unet:width=16,levels=2"
# With the image as its target all that a sample is has come through the network.
_X0 = ",preconditioning=x0"

PRESETS: dict[str, Study | LawStudy] = {
    # The main job: two closed forms and two networks on scikit-learn's digits, in minutes.
    "demo": Study(name="demo", budget=Budget(1200, image_shape=(8, 8, 1))),
    # The theory: every family against the distribution that its samples must have.
    "laws": LawStudy(),
    # One UNet, and one thing of it changed at a time: Levine and Weiss 2026.
    "unet-changes": Study(
        name="unet-changes",
        architectures=(
            _UNET + _X0,
            f"{_UNET},skips=false" + _X0,
            "unet:width=16,levels=1" + _X0,
            "unet:width=16,levels=3" + _X0,
            "unet:width=4,levels=2" + _X0,
            f"{_UNET},padding=circular" + _X0,
            f"{_UNET},norm=none" + _X0,
            f"{_UNET},norm=batch" + _X0,
            f"{_UNET},norm=bias_free_batch" + _X0,
            f"{_UNET},time=false" + _X0,
            f"{_UNET},per_level=vp_cosine:4" + _X0,
            "paper_unet:width=16,levels=2,per_level=vp_cosine:4",
        ),
        budget=Budget(500),
        # The paper's sampler. Heun's second evaluation cannot bear the first step of a grid with
        # four levels: even the affine denoiser's samples are nonsense there.
        solver="ddim",
        sigmas="vp_cosine:18",
        claims=("differ", "unrealistic"),
        **_CHANGES,
    ),
    # The width of a fully connected network, from narrower than the data to wide enough to keep it.
    "mlp-width": Study(
        name="mlp-width",
        architectures=tuple(f"mlp:width={width}" for width in (16, 32, 48, 100, 200, 400)),
        num_train=(300,),
        budget=Budget(3000),
        claims=("width",),
        **_CHANGES,
    ),
    # What the network is asked for: the image, the noise or between them.
    "preconditioning": Study(
        name="preconditioning",
        architectures=tuple(
            f"{network},preconditioning={row}"
            for network in (_UNET, "mlp:output=linear")
            for row in ("edm", "x0", "eps", "v")
        ),
        budget=Budget(600),
        claims=("differ", "unrealistic"),
        **_CHANGES,
    ),
    # How far a network sees, and whether it knows where it is: Kamb and Ganguli 2025.
    "locality": Study(
        name="locality",
        architectures=(
            "resnet:width=32,depth=2",
            "resnet:width=32,depth=1",
            "resnet:width=32,depth=4",
            "resnet:width=32,depth=2,kernel_size=1",
            "resnet:width=32,depth=2,kernel_size=5",
            "resnet:width=32,depth=2,padding=circular",
            "resnet:width=32,depth=4,padding=circular",
            "resnet:width=32,depth=2,norm=batch",
        ),
        budget=Budget(600),
        claims=("sight", "padding", "differ", "unrealistic"),
        **_CHANGES,
    ),
}
