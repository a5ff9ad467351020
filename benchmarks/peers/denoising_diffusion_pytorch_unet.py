"""`Unet` of denoising-diffusion-pytorch, its attention taken out.

The package has no option without attention, so each attention layer, added to its input, is
replaced by zero. What stays different from jdiff's UNet: two blocks a level on the way down too and
one more at the end, a 7x7 first convolution, RMS norms after the convolutions, downsampling by
moving 2x2 pixels into channels, scale and shift from the time.
"""

from typing import Any

from torch_steps import run


def make(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """The model and its call."""
    import torch  # pyright: ignore[reportMissingImports]
    from denoising_diffusion_pytorch import Unet  # pyright: ignore[reportMissingImports]

    channels, image_channels = arguments["channels"], arguments["image_shape"][2]
    multiples = tuple(features // channels[0] for features in channels)
    model = Unet(dim=channels[0], dim_mults=multiples, channels=image_channels)

    class Zero(torch.nn.Module):
        def forward(self, x: Any) -> float:
            return 0.0

    for level in [*model.downs, *model.ups]:
        level[2] = Zero()
    model.mid_attn = Zero()
    return model, model


if __name__ == "__main__":
    run(
        make,
        "denoising-diffusion-pytorch",
        "Unet with its attention replaced by zero: two blocks a level and one more at the end, RMS "
        "norms, a 7x7 first convolution",
    )
