"""jdiff's own UNet in a process of its own: "tuned" as the peers are, with memory kept.

What an allocator's settings, which belong to a whole process, are worth to jdiff; "default" is what
the suite measures in its own process.
"""

from typing import Any

from jax_steps import run


def make(arguments: dict[str, Any]) -> Any:
    """The network, a linen module."""
    from jdiff import networks

    width, levels = arguments["channels"][0], len(arguments["channels"])
    blocks = arguments["layers_per_block"]
    shape = tuple(arguments["image_shape"])
    return networks.create("unet", shape, width=width, levels=levels, blocks=blocks)


if __name__ == "__main__":
    run(make, "optax", "jdiff's UNet, the bare step")
