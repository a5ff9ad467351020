"""`Unet` of dewml (imported as dew), without attention.

What stays different from jdiff's UNet: a level has as many blocks on the way down as on the way up
(two where jdiff's has one and two, which comes nearest in FLOPs), those on the way down keep the
channels of the level above, and one block more follows a last convolution. Needs Python 3.12, and
the jax that it pins.
"""

from typing import Any

from jax_steps import run


def make(arguments: dict[str, Any]) -> Any:
    """The network, a linen module."""
    from dew.nn.backbones import Unet  # pyright: ignore[reportMissingImports]

    channels = arguments["channels"]
    return Unet(
        output_channels=arguments["image_shape"][2],
        emb_features=4 * channels[0],
        feature_depths=tuple(channels),
        attention_configs=(None,) * len(channels),
        num_res_blocks=arguments["layers_per_block"] + 1,
    )


if __name__ == "__main__":
    run(
        make,
        "dewml",
        "Unet without attention: two blocks a level both ways and one at the end, 8 groups in all "
        "group norms",
    )
