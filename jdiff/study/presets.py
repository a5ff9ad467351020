"""Named studies, for `jdiff study NAME`; every field can be overridden.

Those that change one thing of a network stand here twice: for images as small as scikit-learn's
digits, in minutes on two cores, and as NAME-28 for 28 pixels a side, in up to 130 minutes.
"""

from typing import Any

from jdiff.study.config import Budget, Study
from jdiff.study.laws import LawStudy

# What the studies of one changed thing have in common: three trainings of every network, which is
# also held against the closed forms.
_CHANGES: dict[str, Any] = {"seeds": (0, 1, 2), "interpret": True, "num_samples": 256}
_SMALL: dict[str, Any] = {**_CHANGES, "batch_size": 64}
# Small batches: of as many images, more steps.
_AT_28: dict[str, Any] = {
    **_CHANGES,
    "data": "tfds:fashion_mnist",
    "batch_size": 16,
    "schedule": "cosine",
}
# Of few images a UNet learns to make new ones in minutes, of all 60,000 not in seven.
_UNET_AT_28: dict[str, Any] = {**_AT_28, "num_train": (300,), "budget": Budget(1200)}


def _unet(levels: int) -> str:
    return f"unet:width=16,levels={levels}"


def _unet_changes(levels: int) -> dict[str, Any]:
    """One UNet, and one thing of it changed at a time: Levine and Weiss 2026."""
    x0 = ",preconditioning=x0"  # all that a sample has comes through the network
    unet = _unet(levels)
    return {
        "architectures": (
            unet + x0,
            f"{unet},skips=false" + x0,
            *(_unet(other) + x0 for other in (1, 2, 3) if other != levels),
            f"unet:width=4,levels={levels}" + x0,
            f"{unet},padding=circular" + x0,
            f"{unet},norm=none" + x0,
            f"{unet},norm=batch" + x0,
            f"{unet},norm=bias_free_batch" + x0,
            f"{unet},time=false" + x0,
            f"{unet},per_level=vp_cosine:4" + x0,
            "paper_unet:width=16,levels=2,per_level=vp_cosine:4",  # it halves images twice
        ),
        # The paper's sampler. Heun's second evaluation cannot bear the first step of a grid with
        # four levels: even the affine denoiser's samples are nonsense there.
        "solver": "ddim",
        "sigmas": "vp_cosine:18",
        "claims": ("differ", "unrealistic"),
    }


def _preconditioning(levels: int) -> dict[str, Any]:
    """What the network is asked for: the image, the noise or between them."""
    return {
        "architectures": tuple(
            f"{network},preconditioning={row}"
            for network in (_unet(levels), "mlp:output=linear")
            for row in ("edm", "x0", "eps", "v")
        ),
        "claims": ("differ", "unrealistic"),
    }


# The width of a fully connected network, from narrower than the data to wide enough to keep it.
_MLP_WIDTH: dict[str, Any] = {
    "architectures": tuple(f"mlp:width={width}" for width in (16, 32, 48, 100, 200, 400)),
    "num_train": (300,),
    "claims": ("width",),
}
# How far a network sees, and whether it knows where it is: Kamb and Ganguli 2025.
_LOCALITY: dict[str, Any] = {
    "architectures": (
        "resnet:width=32,depth=2",
        "resnet:width=32,depth=1",
        "resnet:width=32,depth=4",
        "resnet:width=32,depth=2,kernel_size=1",
        "resnet:width=32,depth=2,kernel_size=5",
        "resnet:width=32,depth=2,padding=circular",
        "resnet:width=32,depth=4,padding=circular",
        "resnet:width=32,depth=2,norm=batch",
    ),
    "claims": ("sight", "padding", "differ", "unrealistic"),
}

# By name, what a study is made of. A UNet's coarsest level has 4 pixels a side of 8, and 7 of 28.
_STUDIES: dict[str, dict[str, Any]] = {
    "unet-changes": {**_SMALL, **_unet_changes(2), "budget": Budget(500)},
    "mlp-width": {**_SMALL, **_MLP_WIDTH, "budget": Budget(3000)},
    "preconditioning": {**_SMALL, **_preconditioning(2), "budget": Budget(600)},
    "locality": {**_SMALL, **_LOCALITY, "budget": Budget(600)},
    "unet-changes-28": {**_UNET_AT_28, **_unet_changes(3)},
    "mlp-width-28": {**_AT_28, **_MLP_WIDTH, "batch_size": 64, "budget": Budget(6000)},
    "preconditioning-28": {**_UNET_AT_28, **_preconditioning(3)},
    "locality-28": {**_AT_28, **_LOCALITY, "budget": Budget(3000)},
}

PRESETS: dict[str, Study | LawStudy] = {
    # The main job: two closed forms and two networks on scikit-learn's digits, in minutes.
    "demo": Study(name="demo", budget=Budget(1200, image_shape=(8, 8, 1))),
    # The theory: every family against the distribution that its samples must have.
    "laws": LawStudy(),
    **{name: Study(name=name, **fields) for name, fields in _STUDIES.items()},
}
