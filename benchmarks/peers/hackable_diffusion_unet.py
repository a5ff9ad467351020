"""`Unet` of hackable_diffusion, with attention in the middle alone, where it has no switch.

What stays different from jdiff's UNet: each change of resolution is a residual block of two
convolutions, and time enters as scale and shift of the second norm. Needs Python 3.12.
"""

from typing import Any

from jax_steps import run


def make(arguments: dict[str, Any]) -> Any:
    """The network, a linen module."""
    # First, since it may be absent: flax takes seconds.
    from hackable_diffusion import hd  # pyright: ignore[reportMissingImports]  # isort: skip
    import flax.linen as nn

    parts, channels = hd.architecture, arguments["channels"]
    levels = len(channels)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any, c_noise: Any) -> Any:
            time = parts.SinusoidalTimeEmbedder(
                activation="silu", embedding_dim=2 * channels[0], num_features=4 * channels[0]
            )(c_noise)
            return parts.Unet(
                base_channels=channels[0],
                channels_multiplier=tuple(features // channels[0] for features in channels),
                num_residual_blocks=(arguments["layers_per_block"],) * levels,
                downsample_fn=parts.AvgPoolDownsample(),
                upsample_fn=parts.ImageResizeUpsample(resize_method="nearest"),
                dropout_rate=(0.0,) * levels,
                bottleneck_dropout_rate=0.0,
                self_attention_bool=(False,) * levels,
                cross_attention_bool=(False,) * levels,
                attention_num_heads=1,
                attention_head_dim=-1,  # as many features as there are
                attention_normalize_qk=False,
                attention_use_rope=False,
                attention_rope_positions_fn=parts.SquareRoPEPositions(),
                normalization_type=parts.NormalizationType.GROUP_NORM,
                normalization_num_groups=8,
                activation="silu",
                skip_connection_fn=parts.UnnormalizedAddSkip(),
            )(x, {"adaptive_norm": time}, is_training=False)

    return Network()


if __name__ == "__main__":
    run(
        make,
        "hackable-diffusion",
        "Unet with one head of attention in the middle alone, residual blocks that change the "
        "resolution, 8 groups in all group norms",
    )
