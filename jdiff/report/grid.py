"""Images as one PNG grid."""

import math
import os
from typing import Any

import numpy as np

from jdiff import _files, _pixels

_GAP = 2  # pixels of background between images
_SMALLEST = 32  # images smaller than this are enlarged by a whole factor, with crisp pixels


def write_grid(path: str | os.PathLike, images: Any) -> None:
    """Writes images as a PNG grid, about as wide as high, in order row by row.

    Args:
      path: the PNG.
      images: [N, H, W, 1 or 3], uint8 or model units (clipped to [-1, 1] here, as in any picture).

    Raises:
      ValueError: on images of another shape or number of channels.
    """
    from PIL import Image

    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must have shape [N, H, W, 1 or 3]; got {images.shape}.")
    images = _pixels.to_uint8(images)
    factor = max(1, math.ceil(_SMALLEST / max(images.shape[1:3])))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    n, h, w, c = images.shape
    columns = math.ceil(math.sqrt(n))
    lines = math.ceil(n / columns)
    sheet = np.full((lines * (h + _GAP) + _GAP, columns * (w + _GAP) + _GAP, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + (i // columns) * (h + _GAP), _GAP + (i % columns) * (w + _GAP)
        sheet[top : top + h, left : left + w] = image
    picture = Image.fromarray(sheet[..., 0] if c == 1 else sheet)
    _files.write(path, lambda file: picture.save(file, format="PNG"))
