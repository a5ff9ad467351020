"""A classifier trained on a data set's own labels, and kept in a file.

    minimise  mean_b -log softmax(logits(x_b))[label_b]

by Adam on batches drawn with replacement, the learning rate falling to 0 along half a cosine. One
compiled step a dispatch: inside a loop a convolution's weight gradient is 100 times slower on a
CPU. The file holds weights, held-out accuracy, and all that they depend on; with other data or
settings, or damaged, it is made anew.

Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2014; Loshchilov & Hutter,
"SGDR: stochastic gradient descent with warm restarts", 2016, eq. 5 (the cosine).
"""

import functools
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm.auto import tqdm

from jdiff import _check, _files, _pixels, parallel
from jdiff.data import ImageData, batches
from jdiff.networks.classifier import Classifier
from jdiff.training.rundir import describe_module

SCHEMA = 1
BATCH_SIZE, LEARNING_RATE = 128, 5e-3
_ADAM = optax.scale_by_adam()
FILE = "classifier.npz"
# Folded into the seed's key.
_INIT, _STEPS = 0, 1


class Trained(NamedTuple):
    """A trained classifier.

    Attributes:
      variables: of the module, {"params": {"features", "head"}}, host arrays.
      accuracy: the share of held-out images given their label.
    """

    variables: Any
    accuracy: float


def load_or_train(
    data: ImageData,
    *,
    dim: int,
    steps: int,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Trained:
    """The classifier of a data set: read from `cache_dir` if it is there, else trained.

    The same arguments give the same weights on one kind of device (on GPUs up to the order of
    their sums).

    Args:
      data: labelled images; weights are the probabilities that training images are drawn with.
      dim: features before the logits.
      steps: of training, `BATCH_SIZE` images each.
      seed: of initialisation and batches.
      cache_dir: where classifier.npz is kept, or None.
      progress: shows a progress bar on stderr.

    Returns:
      `Trained`.

    Raises:
      TypeError: if `dim`, `steps` or `seed` is not whole.
      ValueError: if `data` lacks labels, held-out labels or a second class, one of those is out of
        range, or `cache_dir` is a file.
      FloatingPointError: if training diverges.

    Warns:
      UserWarning: about classes that the accuracy says nothing about, and a damaged file.
    """
    check_labels(data)
    assert data.num_classes is not None  # as there are labels
    module = Classifier(data.num_classes, dim)
    steps = _check.integer("steps", steps)
    seed = _check.integer("seed", seed, minimum=0)
    if cache_dir is None:
        return train(module, data, steps, seed, progress)
    _files.refuse_file("cache_dir", cache_dir)
    file = Path(cache_dir) / FILE
    settings = _files.plain(
        {
            "schema": SCHEMA,
            "data": data.fingerprint(),
            "module": describe_module(module),
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "seed": seed,
        }
    )
    found = _read(file, settings, _shapes(module, data))
    # One process writes, and all wait for it: whether it will is its to say, should only some of
    # them see the file.
    there = parallel.same_everywhere(int(found is not None))
    if found is None:
        found = train(module, data, steps, seed, progress)
    if not there:
        parallel.on_writer(functools.partial(_write, file, settings, found))
    return found


def check_labels(data: ImageData) -> None:
    """Refuses data that no classifier can be trained on and judged by.

    Raises:
      ValueError: naming what is missing.
    """
    others = "or choose another encoder: pixels, pca, random_conv, or a function of images"
    if data.labels is None:
        raise ValueError(
            f"data {data.name} has no labels, which the classifier is trained on; give labels=, "
            f"{others}."
        )
    if data.held_out_labels is None:
        raise ValueError(
            f"data {data.name} has no held_out_labels, without which nothing says how good the "
            f"classifier is; give held_out_labels=, {others}."
        )
    drawn = data.labels if data.weights is None else data.labels[data.weights > 0]
    classes = np.unique(drawn)
    if len(classes) < 2:
        raise ValueError(
            f"data {data.name} must have training images of at least 2 classes for a classifier; "
            f"all have label {classes[0]}. Take more images, {others}."
        )
    unseen = np.setdiff1d(classes, data.held_out_labels)
    if len(unseen):
        warnings.warn(
            f"data {data.name} has no held-out images of {len(unseen)} of {len(classes)} classes "
            f"({', '.join(map(str, unseen[:8]))}{', ...' if len(unseen) > 8 else ''}): the "
            "classifier's held-out accuracy says nothing about them.",
            stacklevel=2,
        )


def train(
    module: Any, data: ImageData, steps: int, seed: int = 0, progress: bool = True
) -> Trained:
    """Trains a `Classifier`; `load_or_train` checks the arguments and keeps the result.

    Raises:
      FloatingPointError: if the loss stops being finite.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    step, predict = _programs(module)
    variables = initial(module, jax.random.fold_in(key, _INIT), data.image_shape)
    state = (jnp.zeros((), jnp.int32), variables, _ADAM.init(variables))
    cdf = None if data.weights is None else jnp.asarray(batches.cumulative(data.weights))
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
    steps_key = jax.random.fold_in(key, _STEPS)
    loss = jnp.zeros(())
    hidden = not (progress and parallel.is_writer())
    for done in tqdm(range(steps), desc="train classifier", unit="step", disable=hidden):
        state, loss = step(state, images, labels, cdf, steps_key, jnp.asarray(steps))
        if done % 20 == 0:
            jax.block_until_ready(loss)  # or the bar would run ahead of the device
    if not np.isfinite(loss):
        raise FloatingPointError(f"the classifier's training loss is {loss} after {steps} steps.")
    variables = jax.device_get(state[1])
    return Trained(variables, _accuracy(predict, variables, data))


@functools.partial(jax.jit, static_argnums=(0, 2))
def initial(module: Any, key: jax.Array, image_shape: tuple[int, int, int]) -> Any:
    """Fresh variables of a network of images on the [0, 1] scale: a function of the key alone."""
    return module.init(key, jnp.zeros((1, *image_shape), jnp.float32))


@functools.lru_cache(maxsize=8)
def _programs(module: Any) -> tuple[Callable, Callable]:
    """The compiled step and prediction.

    (state, images, labels, cdf, key, steps) -> (state, loss), state donated; `steps` is an array,
    so that another number of them does not compile again. (variables, images) -> classes.
    """

    def step(
        state: tuple, images: Any, labels: Any, cdf: Any, key: jax.Array, steps: jax.Array
    ) -> tuple:
        done, variables, moments = state
        rows = batches.draw(
            batches.example_keys(key, done, jnp.arange(BATCH_SIZE)), len(images), cdf
        )

        def loss_of(variables: Any) -> jax.Array:
            logits = jax.nn.log_softmax(module.apply(variables, _pixels.to_unit(images[rows])))
            return -jnp.mean(jnp.take_along_axis(logits, labels[rows][:, None], axis=1))

        loss, gradient = jax.value_and_grad(loss_of)(variables)
        direction, moments = _ADAM.update(gradient, moments)
        rate = LEARNING_RATE * (1 + jnp.cos(jnp.pi * done / steps)) / 2
        variables = jax.tree.map(lambda v, d: v - rate * d, variables, direction)
        return (done + 1, variables, moments), loss

    def predict(variables: Any, images: jax.Array) -> jax.Array:
        return jnp.argmax(module.apply(variables, _pixels.to_unit(images)), axis=1)

    options = parallel.compiler_options(convolutions=True) or None
    return (
        jax.jit(step, donate_argnums=(0,), compiler_options=options),
        jax.jit(predict, compiler_options=options),
    )


def _accuracy(predict: Callable, variables: Any, data: ImageData) -> float:
    """The share of held-out images given their label, in batches of one size."""
    held_out, labels = data.held_out, np.asarray(data.held_out_labels)
    right = 0
    for start in range(0, len(held_out), BATCH_SIZE):
        rows = np.arange(start, min(start + BATCH_SIZE, len(held_out)))
        padded = np.pad(rows, (0, BATCH_SIZE - len(rows)), mode="edge")
        found = np.asarray(predict(variables, held_out[padded]))[: len(rows)]
        right += int(np.sum(found == labels[rows]))
    return right / len(held_out)


def _shapes(module: Classifier, data: ImageData) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its path."""
    key = jax.random.key(0, impl="threefry2x32")
    variables = jax.eval_shape(lambda: initial(module, key, data.image_shape))
    weights: Any = flax.traverse_util.flatten_dict(variables, sep="/")
    return {name: leaf.shape for name, leaf in weights.items()}


def _write(file: Path, settings: dict, trained: Trained) -> None:
    weights = flax.traverse_util.flatten_dict(trained.variables, sep="/")
    text = json.dumps(settings, sort_keys=True)
    _files.write_arrays(file, settings=text, accuracy=np.float64(trained.accuracy), **weights)


def _read(file: Path, settings: dict, shapes: dict[str, tuple[int, ...]]) -> Trained | None:
    """What was kept under equal settings, or None; a damaged file is named in a warning."""
    if not file.exists():
        return None
    try:
        # The zip's own checksums find flipped bits.
        arrays = _files.read_arrays(file)
        if json.loads(str(arrays.pop("settings"))) != settings:
            return None
        accuracy = float(arrays.pop("accuracy"))
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise ValueError("it does not hold the network's weights")
    except Exception as error:  # zip, NumPy, JSON and key errors: not the file that was written
        warnings.warn(f"{file} is damaged ({error}); training the classifier anew.", stacklevel=3)
        return None
    return Trained(flax.traverse_util.unflatten_dict(arrays, sep="/"), accuracy)
