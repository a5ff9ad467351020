"""Feature spaces: what a measure takes its distances in, f(images) -> float32 [n, d].

    pixels                   the image on [0, 1], flattened
    pca[:dim=64]             V^T (x - mu): the training pixels' mean and leading covariance axes
    classifier[:dim=128,steps=600]   the last hidden layer of a classifier trained on the labels,
                             after its ReLU
    random_conv[:dim=128]    the same layer before its ReLU, with the weights it starts with
    a function               of float32 images [B, H, W, C] on the [0, 1] scale, to [B, d]

Samples are unclipped, and stay so: a pixel of 1.3 is given to the encoder as 1.3. Nothing is
downloaded. Features of different encoders, seeds or training sets cannot be compared: the printed
name says which they are.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdiff import _check, _pixels, parallel
from jdiff.data import ImageData
from jdiff.denoisers import axes
from jdiff.metrics import inputs
from jdiff.networks.classifier import ConvFeatures
from jdiff.study.classifier import initial, load_or_train

PCA_DIM, CONV_DIM, STEPS = 64, 128, 600


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A checked function from images to features, applied in batches of one size.

    Attributes:
      name: what a measure's printed name carries, for example "pca 64".
      image_shape: (H, W, C) of the images it takes.
      function: float32 NumPy images [batch_size, H, W, C] on the [0, 1] scale -> [batch_size, d].
      batch_size: images a call; the last batch is filled up with copies of its last image.
    """

    name: str
    image_shape: tuple[int, int, int]
    function: Callable[[np.ndarray], Any]
    batch_size: int = 256

    def __call__(self, images: Any) -> np.ndarray:
        """The features of images.

        Args:
          images: [n, H, W, C], uint8 or unclipped model units; values outside [-1, 1] are passed
            on as they are, outside [0, 1].

        Returns:
          float32 [n, d].

        Raises:
          TypeError: if the images are neither uint8 nor floating, or the features not floating.
          ValueError: on images of another shape or not finite, or features that are not
            [batch_size, d] with one d, or not finite in float32.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            h, w, c = self.image_shape
            raise ValueError(
                f"images must have shape [n, {h}, {w}, {c}] for the encoder {self.name}; got "
                f"{images.shape}."
            )
        images = inputs.samples("images", images)
        features: np.ndarray | None = None
        for start in range(0, len(images), self.batch_size):
            rows = images[start : start + self.batch_size]
            fill = [(0, self.batch_size - len(rows))] + [(0, 0)] * 3
            given = np.pad(_pixels.to_unit(rows), fill, mode="edge")
            found = self._checked(self.function(given))[: len(rows)]
            if features is None:
                features = np.empty((len(images), found.shape[1]), np.float32)
            if found.shape[1] != features.shape[1]:
                raise ValueError(
                    f"encoder {self.name} must give one number of features; got "
                    f"{features.shape[1]}, then {found.shape[1]}."
                )
            features[start : start + len(rows)] = found
        assert features is not None  # there is at least one image
        bad = ~np.all(np.isfinite(features), axis=1, keepdims=True)
        if bad.any():
            raise ValueError(
                f"encoder {self.name} must give finite features; those of {bad.sum()} of "
                f"{len(bad)} images hold NaN or infinite values."
            )
        return features

    def _checked(self, found: Any) -> np.ndarray:
        """What the function returned, float32 [batch_size, d]."""
        found = np.asarray(found)
        if found.ndim != 2 or len(found) != self.batch_size or found.shape[1] == 0:
            raise ValueError(
                f"encoder {self.name} must give features of shape [{self.batch_size}, d] for "
                f"{self.batch_size} images; got {found.shape}."
            )
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise TypeError(f"encoder {self.name} must give floats; got dtype {found.dtype}.")
        with np.errstate(over="ignore"):  # what overflows float32 is counted at the end
            return found.astype(np.float32)


def create(
    spec: str | Callable[[np.ndarray], Any] | Encoder,
    data: ImageData,
    *,
    cache_dir: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Encoder:
    """Makes a feature space for a data set.

    Args:
      spec: `name[:option=value,...]`, see the top of this file; or a function f(images) ->
        features [B, d], given float32 NumPy images [B, H, W, C] on the [0, 1] scale in batches of
        one size, the last one filled up; or an `Encoder`, given back as it is.
      data: its training images fit `pca` (weights are used), its labels train `classifier`.
      cache_dir: where a trained classifier is kept (classifier.npz) and found again; None keeps
        none.
      seed: of the classifier and of random_conv's weights.
      progress: shows the classifier's progress bar on stderr.

    Returns:
      An `Encoder`, whose `name` says what was made.

    Raises:
      TypeError: if `spec` is neither a string nor a function, or `data` no ImageData.
      ValueError: on an unknown name or option, more PCA axes than there are, missing labels, an
        Encoder for images of another shape, or a `cache_dir` that is a file.

    Example:
      >>> import jdiff
      >>> encoder = create("pca:dim=20", jdiff.data.load("digits"))
      >>> encoder.name, encoder(jdiff.data.load("digits").held_out).shape
      ('pca 20', (360, 20))
    """
    if not isinstance(data, ImageData):
        raise TypeError(f"data must be an ImageData; got {type(data).__name__}.")
    if isinstance(spec, Encoder):
        if spec.image_shape != data.image_shape:
            raise ValueError(
                f"spec is an encoder of images {spec.image_shape}; data has {data.image_shape}."
            )
        return spec
    if isinstance(spec, str):
        name, options = parse(spec)
        make, _ = SPACES[name]
        context = _Context(data, cache_dir, _check.integer("seed", seed, minimum=0), progress)
        return make(context, **options)
    if not callable(spec):
        raise TypeError(
            f"spec must be a string such as 'pca:dim=64', or a function of images; got {spec!r}."
        )
    name = getattr(spec, "__name__", type(spec).__name__)
    return Encoder(name, data.image_shape, spec)


def parse(spec: str) -> tuple[str, dict[str, int]]:
    """Reads `name[:option=value,...]`; all values are whole numbers.

    Raises:
      ValueError: on an unknown name or option, or a value that is no whole number of at least 1.

    Example:
      >>> parse("classifier:dim=32,steps=100")
      ('classifier', {'dim': 32, 'steps': 100})
    """
    name, colon, rest = spec.partition(":")
    _, accepted = SPACES[_check.choice("encoder", name, SPACES)]
    options: dict[str, int] = {}
    for pair in rest.split(",") if colon else ():
        option, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not accepted:
            form = f"{name}:{'=N,'.join(accepted)}=N" if accepted else f"{name}, without options"
            raise ValueError(f"encoder must read {form}; got {spec!r}.")
        _check.choice(f"option of {name}", option, accepted)
        if option in options:
            raise ValueError(f"encoder names {option} twice in {spec!r}.")
        try:
            options[option] = _check.integer(option, int(value))
        except ValueError as error:
            raise ValueError(
                f"{option} must be a whole number of at least 1; got {value!r} in {spec!r}."
            ) from error
    return name, options


@dataclasses.dataclass(frozen=True)
class _Context:
    """What an encoder may be made from."""

    data: ImageData
    cache_dir: str | os.PathLike | None
    seed: int
    progress: bool


def _pixels_space(context: _Context) -> Encoder:
    return Encoder("pixels", context.data.image_shape, lambda x: x.reshape(len(x), -1))


def _pca(context: _Context, dim: int | None = None) -> Encoder:
    """Projection on the leading covariance axes, float64 on the host; dim None takes up to 64."""
    data = context.data
    flat = data.images.reshape(data.num_train, -1)
    p = np.full(len(flat), 1 / len(flat)) if data.weights is None else data.weights
    n, most = int(np.count_nonzero(p)), axes.num_axes(int(np.count_nonzero(p)), flat.shape[1])
    if n < 2:
        raise ValueError(f"data must have at least 2 training images for pca; {data.name} has {n}.")
    if dim is not None and dim > most:
        raise ValueError(
            f"dim must be at most {most}, the axes that {n} images of {flat.shape[1]} values have "
            f"about their mean; got {dim}."
        )
    dim = min(PCA_DIM, most) if dim is None else dim
    mean, _, directions = axes.principal_axes(flat, p)
    # Those are in model units; on [0, 1] the mean moves and the axes stay.
    mean, directions = (mean + 1) / 2, directions[:, :dim]

    def project(x: np.ndarray) -> np.ndarray:
        return (x.reshape(len(x), -1).astype(np.float64) - mean) @ directions

    return Encoder(f"pca {dim}", data.image_shape, project)


def _classifier(context: _Context, dim: int = CONV_DIM, steps: int = STEPS) -> Encoder:
    trained = load_or_train(
        context.data,
        dim=dim,
        steps=steps,
        seed=context.seed,
        cache_dir=context.cache_dir,
        progress=context.progress,
    )
    name = f"classifier {dim}, held-out accuracy {trained.accuracy:.3f}"
    variables = {"params": trained.variables["params"]["features"]}
    hidden = _convolutional(dim, variables)
    return Encoder(name, context.data.image_shape, lambda x: np.maximum(hidden(x), 0))


def _random_conv(context: _Context, dim: int = CONV_DIM) -> Encoder:
    key = jax.random.key(context.seed, impl="threefry2x32")
    variables = initial(ConvFeatures(dim), key, context.data.image_shape)
    name = f"random_conv {dim}, seed {context.seed}"
    return Encoder(name, context.data.image_shape, _convolutional(dim, variables))


# Name -> the function that makes the encoder, and its options.
SPACES: Mapping[str, tuple[Callable[..., Encoder], tuple[str, ...]]] = {
    "pixels": (_pixels_space, ()),
    "pca": (_pca, ("dim",)),
    "classifier": (_classifier, ("dim", "steps")),
    "random_conv": (_random_conv, ("dim",)),
}


def _convolutional(dim: int, variables: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The compiled features of `ConvFeatures(dim)` with given variables, on all devices."""
    module: Any = ConvFeatures(dim)  # linen modules are hashable; the type checker thinks not
    program, placed = _program(module), parallel.replicate(variables)

    def encode(x: np.ndarray) -> np.ndarray:
        return np.asarray(parallel.collect(program(placed, parallel.split(x)), len(x)))

    return encode


@functools.lru_cache(maxsize=8)
def _program(module: Any) -> Callable:
    def features(variables: Any, x: jax.Array) -> jax.Array:
        # Distances are taken between these: no bfloat16 or TF32.
        with jax.default_matmul_precision("highest"):
            return module.apply(variables, x)

    return parallel.map_devices(features, in_axes=(None, 0), convolutions=True)
