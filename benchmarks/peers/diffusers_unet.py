"""`UNet2DModel` of diffusers: the layers of jdiff's UNet, with two more kinds of biases.

2,470,883 parameters for 32x32x3 and channels 32, 64, 128, where jdiff's has 2,474,051: a block's
first convolution has a bias here, and time enters as 32 waves instead of 64.
"""

from typing import Any

from torch_steps import run


def make(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its call."""
    from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports]

    channels, (height, width, image_channels) = arguments["channels"], arguments["image_shape"]
    model = UNet2DModel(
        sample_size=(height, width),
        in_channels=image_channels,
        out_channels=image_channels,
        block_out_channels=tuple(channels),
        layers_per_block=arguments["layers_per_block"],
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        add_attention=False,
        norm_num_groups=8,  # one number for all: jdiff's 8 at 32 channels
    )
    return model, lambda x, c_noise: model(x, c_noise, return_dict=False)[0]


if __name__ == "__main__":
    run(
        make,
        "diffusers",
        "UNet2DModel without attention: the layers of jdiff's UNet, 8 groups in all group norms",
    )
