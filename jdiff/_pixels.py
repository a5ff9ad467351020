"""The only conversions between the three ranges an image can have.

uint8 in 0..255 (disk, device memory, `ImageData`); model units [-1, 1] (denoisers, samples);
unit range [0, 1] (measures, encoders). Model = u / 127.5 - 1, unit = u / 255 = (model + 1) / 2.
Only `to_uint8`, for figures and picture files, clips.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def to_model(x: Any) -> Any:
    """uint8 or model-unit floats -> float32 model units; NumPy stays NumPy, jax stays jax."""
    if x.dtype in (np.uint8, jnp.uint8):
        return x.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return x.astype(np.float32)


def to_unit(x: Any) -> Any:
    """uint8 or model-unit floats -> float32 on the [0, 1] scale, never clipped."""
    if x.dtype in (np.uint8, jnp.uint8):
        return x.astype(np.float32) / np.float32(255)
    return (x.astype(np.float32) + np.float32(1)) / np.float32(2)


def to_uint8(x: Any) -> np.ndarray:
    """uint8 or model-unit floats -> uint8, rounded and clipped: for pictures."""
    x = np.asarray(x)
    if x.dtype == np.uint8:
        return x
    return np.clip(np.rint((x.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)
