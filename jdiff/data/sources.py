"""Data sets by name: `load("digits")`, `load("npz:faces.npz")`, `load("tfds:mnist")`, ...

One function a scheme, all of one shape, in the dict `SCHEMES`. Only digits and toy data come with
jdiff; tfds reads prepared data sets through `tfds.data_source`, without TensorFlow. What a file
does not say clearly (mixed sizes, palettes, transparency) is refused, never guessed at.
"""

import difflib
import importlib.util
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdiff import _check
from jdiff.data.images import ImageData, from_arrays

_LARGE = 20_000  # From so many images on, reading shows a progress bar.
_CHUNK = 1_000  # Records read at once.


def load(
    spec: str,
    *,
    data_dir: str | os.PathLike | None = None,
    download: bool = False,
    held_out: float | str | None = None,
) -> ImageData:
    """Loads a data set by name.

    - `digits`: scikit-learn's 1,797 real 8x8 digits, 1,437 of them training images.
    - `npz:PATH`: train_images (or images), train_labels (labels), test_images (held_out),
      test_labels (held_out_labels), weights; all but the first may be missing.
    - `folder:TRAIN,HELD_OUT`: PNG or JPEG files of one size, in sorted order; subfolders, if there
      are any, are the classes.
    - `tfds:NAME[:SPLIT]`: a prepared TensorFlow Datasets data set, `train` or another split of it,
      such as `train[:1000]`.
    - `toy:NAME`: 1,000 points [N, 1, 1, C] in model units: two_moons, ring, gaussian_2d,
      gaussian_1d; two_points is just -1 and 1.

    Args:
      spec: one of the above.
      data_dir: where tfds looks; None means TFDS's own default. Other schemes do not look there.
      download: let tfds prepare a data set that is not there yet (needs TensorFlow).
      held_out: None takes the held-out images that the data comes with (tfds: `test`, else
        `validation`). Where it has none, and for tfds always: a fraction in (0, 1) of the training
        images, picked by jax.random.key(0). For tfds also a split.

    Raises:
      ValueError: if the spec is unknown, or what it names is missing, unreadable or not usable.
      TypeError: if an argument or an array has the wrong type.

    Example:
      >>> from jdiff.data import load
      >>> load("toy:ring")
      ImageData('toy:ring': 1000 training and 1000 held-out images, 1x1x2 float32, no labels)
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec must be a string such as 'digits'; got {type(spec).__name__}.")
    scheme, _, argument = spec.partition(":")
    if scheme not in SCHEMES:
        _check.choice("spec", spec, [form for form, _ in SCHEMES.values()])
    form, source = SCHEMES[scheme]
    if bool(argument) != (":" in form) or spec.endswith(":"):
        raise ValueError(f"spec {spec!r} must have the form {form}.")
    try:
        return source(spec, argument, data_dir, download, held_out)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"spec {spec!r}: {error}") from error


def _digits(spec: str, argument: str, data_dir: Any, download: bool, held_out: Any) -> ImageData:
    from sklearn.datasets import load_digits

    _refuse_held_out(held_out, "its own 360 held-out images")
    bunch: Any = load_digits()
    images = np.rint(bunch.images * 255 / 16).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    # The last 360 in file order are of another distribution: pixel Fréchet distance to the others
    # 0.273, permuted 0.103.
    order = np.random.default_rng(0).permutation(len(images))
    train, held = order[:-360], order[-360:]
    return from_arrays(
        images[train],
        labels[train],
        held_out=images[held],
        held_out_labels=labels[held],
        name=spec,
        num_classes=10,
    )


def _npz(spec: str, argument: str, data_dir: Any, download: bool, held_out: Any) -> ImageData:
    path = Path(argument).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz file, as numpy.savez makes it.")
    accepted = {
        "images": ("train_images", "images"),
        "labels": ("train_labels", "labels"),
        "held_out": ("test_images", "held_out"),
        "held_out_labels": ("test_labels", "held_out_labels"),
        "weights": ("weights",),
    }
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = list(file.keys())
            arrays = {key: file[key] for names in accepted.values() for key in names if key in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    given = {}
    for argument_name, names in accepted.items():
        found = [key for key in names if key in arrays]
        if len(found) > 1:
            raise ValueError(f"{path} holds both {found[0]} and {found[1]}; keep one.")
        if found:
            given[argument_name] = arrays[found[0]]
    if "images" not in given:
        raise ValueError(
            f"{path} holds no train_images (or images); its keys: {', '.join(keys) or 'none'}."
        )
    if "held_out" in given:
        _refuse_held_out(held_out, "its own held-out images in the file")
    elif held_out is not None:
        given["held_out"] = _fraction(held_out)
    return from_arrays(**given, key=_split_key(), name=spec)


def _folder(spec: str, argument: str, data_dir: Any, download: bool, held_out: Any) -> ImageData:
    given = argument.split(",")
    if len(given) > 2 or not all(given):
        raise ValueError("folder takes two paths with a comma between, folder:TRAIN,HELD_OUT.")
    paths = [Path(path).expanduser() for path in given]
    if len(paths) == 2 and paths[0].resolve() == paths[1].resolve():
        raise ValueError("the training and the held-out folder must not be the same.")
    images, labels, classes = _read_folder(paths[0], None)
    held_out_labels = None
    if len(paths) == 2:
        _refuse_held_out(held_out, "its own held-out folder")
        held_out, held_out_labels, _ = _read_folder(paths[1], classes)
    elif held_out is not None:
        held_out = _fraction(held_out)
    return from_arrays(
        images,
        labels,
        held_out=held_out,
        held_out_labels=held_out_labels,
        key=_split_key(),
        name=spec,
        num_classes=len(classes) or None,
    )


def _tfds(spec: str, argument: str, data_dir: Any, download: bool, held_out: Any) -> ImageData:
    name, _, split = argument.partition(":")
    split = split or "train"
    builder = _tfds_builder(name, data_dir, download)
    num_classes = _tfds_classes(builder)
    _tfds_rows(builder, split)
    if held_out is None:
        held_out = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if held_out is None:
        raise ValueError(
            f"{name} has neither a test nor a validation split, only "
            f"{', '.join(builder.info.splits)}; give held_out= as a split (such as 'train[90%:]') "
            "or as a fraction in (0, 1) to split off."
        )
    held_out_labels = None
    if isinstance(held_out, str):
        _refuse_overlap(builder, split, held_out)
        held_out, held_out_labels = _read_tfds(builder, held_out, num_classes)
    else:
        held_out = _fraction(held_out)
    images, labels = _read_tfds(builder, split, num_classes)
    return from_arrays(
        images,
        labels,
        held_out=held_out,
        held_out_labels=held_out_labels,
        key=_split_key(),
        name=spec,
        num_classes=num_classes,
    )


def _toy(spec: str, argument: str, data_dir: Any, download: bool, held_out: Any) -> ImageData:
    _refuse_held_out(held_out, "its own 1,000 held-out points")
    name = _check.choice("toy data", argument.replace("-", "_"), TOYS)
    # NumPy on the host: the same points bit for bit, whatever device jax runs on.
    train, held = (TOYS[name](np.random.default_rng(seed), 1_000) for seed in (0, 1))
    if name == "two_points":
        train = np.array([[-1.0], [1.0]])
    train, held = (points.astype(np.float32)[:, None, None, :] for points in (train, held))
    return from_arrays(train, held_out=held, name=f"toy:{name}")


# Scheme -> the form of its spec, the function that loads it.
SCHEMES: dict[str, tuple[str, Callable[..., ImageData]]] = {
    "digits": ("digits", _digits),
    "npz": ("npz:PATH", _npz),
    "folder": ("folder:TRAIN,HELD_OUT", _folder),
    "tfds": ("tfds:NAME[:SPLIT]", _tfds),
    "toy": ("toy:NAME", _toy),
}


def _two_moons(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two interleaved half circles, centred, two thirds of the usual size: about [-1, 1]^2."""
    t, lower = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.where(lower, 1 - np.cos(t), np.cos(t)) - 0.5
    y = np.where(lower, 0.5 - np.sin(t), np.sin(t)) - 0.25
    return np.stack([x, y], axis=1) / 1.5 + rng.normal(0, 0.03, (n, 2))


def _ring(rng: np.random.Generator, n: int) -> np.ndarray:
    """A circle of radius 0.8 with isotropic noise."""
    t = rng.uniform(0, 2 * np.pi, n)
    return 0.8 * np.stack([np.cos(t), np.sin(t)], axis=1) + rng.normal(0, 0.03, (n, 2))


# Name -> function of (generator, n) that gives points [n, C] in model units.
TOYS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "two_moons": _two_moons,
    "ring": _ring,
    # Deviations 0.5 and 0.3, correlation 0.8: an affine denoiser has something to tell apart.
    "gaussian_2d": lambda rng, n: rng.normal(size=(n, 2)) @ np.array([[0.5, 0.24], [0.0, 0.18]]),
    "two_points": lambda rng, n: rng.choice([-1.0, 1.0], (n, 1)),
    "gaussian_1d": lambda rng, n: rng.normal(0, 0.5, (n, 1)),
}


def _refuse_held_out(held_out: Any, has: str) -> None:
    if held_out is not None:
        raise ValueError(f"held_out must be None for data with {has}; got {held_out!r}.")


def _fraction(held_out: Any) -> float:
    return _check.number("held_out (a fraction)", held_out, above=0.0, below=1.0)


def _split_key() -> jax.Array:
    return jax.random.key(0, impl="threefry2x32")


def _decode(file: Any) -> np.ndarray:
    """Decodes one PNG or JPEG to uint8 [H, W, 1] (grey) or [H, W, 3] (RGB)."""
    import PIL.Image

    with PIL.Image.open(file, formats=("PNG", "JPEG")) as image:
        if image.mode not in ("L", "RGB") or "transparency" in image.info:
            mode = image.mode + (" with transparency" if "transparency" in image.info else "")
            raise ValueError(f"images must be 8-bit grey (L) or RGB; got mode {mode}.")
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_all(what: str, total: int, files: Iterable[tuple[str, Any]]) -> np.ndarray:
    """Decodes (name, file) pairs into one array; refuses, by name, what differs from the first."""
    from tqdm import tqdm

    images, first = np.empty((0,), np.uint8), ""
    bar = tqdm(
        files, f"Reading {what}", total, unit=" images", mininterval=1, disable=total < _LARGE
    )
    for i, (name, file) in enumerate(bar):
        try:
            pixels = _decode(file)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises each on bad files.
            raise ValueError(f"cannot use {name}: {error}") from error
        if i == 0:
            images, first = np.empty((total, *pixels.shape), np.uint8), name
        if pixels.shape != images.shape[1:]:
            raise ValueError(
                "images must all have the same height, width and channels; "
                f"{first} has {images.shape[1:]}, {name} has {pixels.shape}."
            )
        images[i] = pixels
    return images


def read_folder(folder: str | os.PathLike) -> np.ndarray:
    """PNG or JPEG files of one folder, or of one subfolder a class, in sorted order.

    Returns:
      uint8 [n, H, W, C].

    Raises:
      ValueError: if there is no such folder, it is empty or holds other files, or the images
        differ in size or mode, naming the first that does.
    """
    return _read_folder(Path(folder), None)[0]


def _read_folder(
    folder: Path, classes: list[str] | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Reads the images of one folder in sorted order.

    Args:
      folder: holds image files, or one subfolder a class that hold them.
      classes: names of the classes, whose places are the labels; None takes them from the folder.

    Returns:
      Images, labels (None for a flat folder), names of the classes.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}.")
    entries = _visible(folder)
    subfolders = [entry for entry in entries if entry.is_dir()]
    if subfolders and len(subfolders) < len(entries):
        raise ValueError(f"{folder} holds both files and subfolders; it must hold one kind.")
    found = [subfolder.name for subfolder in subfolders]
    classes = found if classes is None else classes
    if found != classes:
        raise ValueError(
            f"the training folder and {folder} must have the same class subfolders; "
            f"got {', '.join(classes) or 'none'} and {', '.join(found) or 'none'}."
        )
    groups = [_visible(subfolder) for subfolder in subfolders] if subfolders else [entries]
    for group, parent in zip(groups, subfolders or [folder], strict=True):
        if not group:
            raise ValueError(f"{parent} is empty; it must hold PNG or JPEG files.")
        for file in group:
            if file.is_dir() or file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
                raise ValueError(f"{file} is neither a PNG nor a JPEG file; move it elsewhere.")
    files = [file for group in groups for file in group]
    images = _decode_all(str(folder), len(files), ((str(file), file) for file in files))
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return images, labels if subfolders else None, classes


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _tfds_builder(name: str, data_dir: Any, download: bool) -> Any:
    """Opens a prepared TFDS data set, preparing it first if told to."""
    import tensorflow_datasets as tfds

    folder = None if data_dir is None else os.path.expanduser(os.fspath(data_dir))
    try:
        builder = tfds.builder(name, data_dir=folder)
        if not builder.info.splits and download:
            if importlib.util.find_spec("tensorflow") is None:
                raise ValueError(
                    "download=True needs TensorFlow, which is not installed (pip install "
                    "tensorflow). Without it, name a data_dir= where the data set was prepared in "
                    "the array_record format."
                )
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
            builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        here = sorted(p.name for p in Path(folder).glob("*")) if folder else []
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, {*known, *here}, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(
            f"TFDS knows no data set {name!r}.{hint} In data_dir ({folder or 'the default'}): "
            f"{', '.join(here) or 'nothing'}. tensorflow_datasets.list_builders() names all."
        ) from error
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"TFDS cannot open {name!r}: {error}") from error
    if not builder.info.splits:
        raise ValueError(
            f"{name} is not prepared; looked in {builder.data_path}. Give download=True to prepare "
            "it (needs TensorFlow), or data_dir= where it is prepared in the array_record format."
        )
    return builder


def _tfds_rows(builder: Any, split: str) -> list[tuple[str, int, int]]:
    """Returns what a split reads: (file, first row, row after the last)."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"there is no split {split!r}; splits: {', '.join(builder.info.splits)}, and slices "
            "such as 'train[:1000]'."
        ) from error
    if not sum(rows.take for rows in instructions):
        raise ValueError(f"split {split!r} holds no images.")
    return [(str(rows.filename), rows.skip, rows.skip + rows.take) for rows in instructions]


def _refuse_overlap(builder: Any, split: str, held_out: str) -> None:
    train = _tfds_rows(builder, split)
    for file, start, stop in _tfds_rows(builder, held_out):
        if any(file == f and start < b and a < stop for f, a, b in train):
            raise ValueError(
                f"the training split {split!r} and the held-out split {held_out!r} share images; "
                f"give held_out= as another split, a slice of {', '.join(builder.info.splits)}, "
                "or a fraction in (0, 1)."
            )


def _tfds_classes(builder: Any) -> int | None:
    """Checks that there are uint8 images; returns the number of classes, None without labels."""
    import tensorflow_datasets as tfds

    features: Any = builder.info.features
    known = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = known.get("image"), known.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(
            f"{builder.info.name} has no uint8 image feature called 'image', which is what jdiff "
            f"reads; its features: {', '.join(sorted(known)) or 'none'}."
        )
    return label.num_classes if isinstance(label, tfds.features.ClassLabel) else None


def _read_tfds(
    builder: Any, split: str, num_classes: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a split's images and, if there are classes, its labels."""
    import tensorflow_datasets as tfds

    try:
        # The pictures are decoded here: TFDS takes OpenCV where that is installed, whose JPEG
        # decoder need not agree with Pillow's, and one spec must be one data set.
        source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise ValueError(
            f"{builder.data_path} is not in the array_record format, which is what can be read "
            "without TensorFlow; give another data_dir= with download=True."
        ) from error
    labels = []

    def pictures() -> Iterator[tuple[str, io.BytesIO]]:
        for start in range(0, len(source), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(source)))
            for row, record in zip(rows, source.__getitems__(list(rows)), strict=True):
                labels.append(record.get("label"))
                yield f"image {row} of split {split!r}", io.BytesIO(record["image"])

    images = _decode_all(f"{builder.info.name} {split}", len(source), pictures())
    return images, None if num_classes is None else np.asarray(labels)
