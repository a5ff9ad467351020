"""load("tfds:..."), on a small data set written here as TFDS lays it out, and on real ones."""

import importlib.util
import io
import json
import re
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest

from jdiff.data import load, sources

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data sets at {SHARED}")


def noise_images(n: int, channels: int = 3, seed: int = 0, side: int = 5) -> np.ndarray:
    """Random uint8 images [n, side, side + 1, channels]: height and width differ on purpose."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, side, side + 1, channels), dtype=np.uint8)


def refuses(message: str, *args, error: type[Exception] = ValueError, **kwargs) -> None:
    with pytest.raises(error, match=message):
        load(*args, **kwargs)


FEATURES = "tensorflow_datasets.core.features."


def image_feature(*dims: int, dtype: str = "uint8", encoding: str = "png") -> dict:
    shape = {"dimensions": [str(d) for d in dims]}
    image = {"shape": shape, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": FEATURES + "image_feature.Image", "image": image}


CLASS_LABEL = {
    "pythonClassName": FEATURES + "class_label_feature.ClassLabel",
    "classLabel": {"numClasses": "10"},
}


def write_tfds(
    root: Path, splits: dict[str, tuple], features: dict, file_format: str = "array_record"
) -> Path:
    """Writes a data set `jdiff_tiny` as TFDS lays it out, without TensorFlow.

    Args:
      root: the data_dir.
      splits: name -> (images, labels).
      features: what features.json holds.
      file_format: what dataset_info.json says (array records are written anyhow).
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    protos: Any = tf_example_pb2

    folder = root / "jdiff_tiny" / "1.0.0"
    folder.mkdir(parents=True)
    for split, (images, labels) in splits.items():
        name = f"jdiff_tiny-{split}.{file_format}-00000-of-00001"
        writer: Any = ArrayRecordWriter(str(folder / name), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            buffer = io.BytesIO()
            PIL.Image.fromarray(image.squeeze()).save(buffer, "PNG")
            example = protos.Example()
            example.features.feature["image"].bytes_list.value.append(buffer.getvalue())
            example.features.feature["label"].int64_list.value.append(int(label))
            writer.write(example.SerializeToString())
        writer.close()
    info = {
        "name": "jdiff_tiny",
        "version": "1.0.0",
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
                "shardLengths": [str(len(images))],
            }
            for split, (images, _) in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    described = {
        "pythonClassName": FEATURES + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(described))
    return root


RGB = {"image": image_feature(5, 6, 3), "label": CLASS_LABEL}
TRAIN = (noise_images(30), np.arange(30) % 10)
TEST = (noise_images(8, seed=1), np.arange(8))


@pytest.mark.core
@pytest.mark.parametrize(
    "held_out",
    ["test", "validation", None],
)
def test_tfds_held_out_is_test_else_validation_else_must_be_given(tmp_path, held_out):
    splits = {"train": TRAIN} | ({held_out: TEST} if held_out else {})
    # With both, test is taken.
    if held_out == "test":
        splits["validation"] = (TRAIN[0][:2], TRAIN[1][:2])
    write_tfds(tmp_path, splits, RGB)
    if held_out is None:
        refuses(
            r"jdiff_tiny has neither a test nor a validation split, only train; give held_out=",
            "tfds:jdiff_tiny",
            data_dir=tmp_path,
        )
        return
    d = load("tfds:jdiff_tiny", data_dir=tmp_path)
    for got, wanted in zip((d.images, d.labels), TRAIN, strict=True):
        np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip((d.held_out, d.held_out_labels), TEST, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert (d.num_classes, d.name) == (10, "tfds:jdiff_tiny")


def test_tfds_reads_across_chunks_and_without_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_CHUNK", 7)
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, {"image": image_feature(5, 6, 3)})
    d = load("tfds:jdiff_tiny", data_dir=str(tmp_path))
    np.testing.assert_array_equal(d.images, TRAIN[0])
    assert d.labels is None
    assert d.held_out_labels is None


def test_tfds_grey_images(tmp_path):
    grey_images = noise_images(4, 1)
    splits = {"train": (grey_images, np.arange(4)), "test": (grey_images, np.arange(4))}
    write_tfds(tmp_path, splits, {"image": image_feature(5, 6, 1), "label": CLASS_LABEL})
    np.testing.assert_array_equal(load("tfds:jdiff_tiny", data_dir=tmp_path).images, grey_images)


@pytest.mark.core
def test_tfds_slices_and_fractions(tmp_path):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, RGB)
    d = load("tfds:jdiff_tiny:train[:10]", data_dir=tmp_path, held_out="train[10:15]")
    np.testing.assert_array_equal(d.images, TRAIN[0][:10])
    np.testing.assert_array_equal(d.held_out, TRAIN[0][10:15])
    d = load("tfds:jdiff_tiny:train[50%:]", data_dir=tmp_path, held_out=0.2)
    order = np.asarray(jax.random.permutation(jax.random.key(0), 15))
    np.testing.assert_array_equal(d.held_out, TRAIN[0][15:][order[:3]])
    np.testing.assert_array_equal(d.labels, (TRAIN[1][15:])[order[3:]])


@pytest.mark.parametrize(
    ("split", "held_out"),
    [
        ("test", None),
        ("train+test", None),
        ("train", "train[90%:]"),
        ("train[:10]", "train[9:12]"),
        ("train[5:20]", "test+train[19:]"),
    ],
)
def test_tfds_splits_that_share_images(tmp_path, split, held_out):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, RGB)
    message = re.escape(f"the training split {split!r} and the held-out split") + ".* share images"
    refuses(message, f"tfds:jdiff_tiny:{split}", data_dir=tmp_path, held_out=held_out)


def test_tfds_unknown_splits(tmp_path):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, RGB)
    known = "splits: train, test, and slices"
    refuses(f"there is no split 'tran'; {known}", "tfds:jdiff_tiny:tran", data_dir=tmp_path)
    refuses(r"there is no split 'train\['", "tfds:jdiff_tiny:train[", data_dir=tmp_path)
    refuses(r"'train\[:0\]' holds no images", "tfds:jdiff_tiny:train[:0]", data_dir=tmp_path)
    refuses("no split 'tst'", "tfds:jdiff_tiny", data_dir=tmp_path, held_out="tst")
    refuses(r"held_out \(a fraction\).*got 2", "tfds:jdiff_tiny", data_dir=tmp_path, held_out=2)


@pytest.mark.parametrize(
    ("features", "listed"),
    [
        ({"label": CLASS_LABEL}, "label"),
        ({"image": image_feature(5, 6, 3, dtype="uint16"), "label": CLASS_LABEL}, "image, label"),
        ({"image": CLASS_LABEL}, "image"),
    ],
    ids=["none", "uint16", "another"],
)
def test_tfds_without_an_image_feature(tmp_path, features, listed):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, features)
    message = f"no uint8 image feature called 'image', .*its features: {listed}"
    refuses(message, "tfds:jdiff_tiny", data_dir=tmp_path)


def test_tfds_images_of_mixed_sizes(tmp_path):
    mixed = [*noise_images(3), *noise_images(1, side=7)]
    splits = {"train": (mixed, np.arange(4)), "test": TEST}
    write_tfds(tmp_path, splits, RGB)
    refuses(
        r"image 0 of split 'train' has \(5, 6, 3\), image 3 of split 'train' has \(7, 8, 3\)",
        "tfds:jdiff_tiny",
        data_dir=tmp_path,
    )


def test_tfds_in_another_file_format(tmp_path):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, RGB, file_format="tfrecord")
    refuses(r"jdiff_tiny/1\.0\.0 is not in the array_record", "tfds:jdiff_tiny", data_dir=tmp_path)


@pytest.mark.core
def test_tfds_not_prepared_says_where_it_looked_and_how_to_prepare(tmp_path):
    where = re.escape(str(tmp_path / "mnist"))
    message = rf"mnist is not prepared; looked in {where}/3\.0\.1\. Give download=True .*TensorFlow"
    refuses(message, "tfds:mnist", data_dir=tmp_path)
    refuses(message, "tfds:mnist:train[:10]", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_tfds_unknown_name_lists_close_matches_and_what_lies_there(tmp_path):
    write_tfds(tmp_path, {"train": TRAIN, "test": TEST}, RGB)
    refuses(
        r"TFDS knows no data set 'mnst'\. Did you mean 'mnist'.* In data_dir .*: jdiff_tiny\.",
        "tfds:mnst",
        data_dir=tmp_path,
    )
    refuses("Did you mean 'jdiff_tiny'", "tfds:jdif_tiny", data_dir=tmp_path)
    refuses("the default", "tfds:qqqq")


def test_tfds_download_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuses("download=True needs TensorFlow", "tfds:mnist", data_dir=tmp_path, download=True)
    assert not list(tmp_path.iterdir())


def test_tfds_download_prepares_array_records(monkeypatch):
    import tensorflow_datasets as tfds

    prepared = []

    def builder(name, data_dir, file_format=None):
        prepare = lambda: prepared.append((name, data_dir, file_format))
        info = types.SimpleNamespace(splits={})
        return types.SimpleNamespace(info=info, data_path="x", download_and_prepare=prepare)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(tfds, "builder", builder)
    refuses("mnist is not prepared", "tfds:mnist", data_dir="there", download=True)
    assert prepared == [("mnist", "there", "array_record")]


@needs_shared
def test_mnist_is_mnist():
    d = load("tfds:mnist:train[:2000]", data_dir=SHARED / "tfds")
    assert d.images.shape == (2000, 28, 28, 1)
    # Digits of the canonical test set: 980 zeros, 1135 ones, ...
    counts = np.bincount(np.asarray(d.held_out_labels))
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # Published mean and deviation of the 60,000: 0.1307, 0.3081; the mean of 2,000 images varies
    # by 0.001 (deviation of an image's mean 0.04).
    assert d.images.mean() / 255 == pytest.approx(0.1307, abs=0.004)
    assert d.images.std() / 255 == pytest.approx(0.3081, abs=0.006)


@needs_shared
def test_cifar10_is_in_colour_the_right_way_round():
    d = load("tfds:cifar10:train[:2000]", data_dir=SHARED / "tfds", held_out="test[:500]")
    assert (d.images.shape, d.held_out.shape) == ((2000, 32, 32, 3), (500, 32, 32, 3))
    # Red, green, blue means of the whole set: 0.491, 0.482, 0.447. A channel mean of one image has
    # deviation 0.13, so the mean of 2,000 is known to 0.003, the differences better.
    np.testing.assert_allclose(d.images.mean((0, 1, 2)) / 255, [0.491, 0.482, 0.447], atol=0.012)


@needs_shared
def test_unprepared_name_beside_prepared_ones():
    refuses(
        "kmnist is not prepared; looked in .*tfds/kmnist",
        "tfds:kmnist",
        data_dir=SHARED / "tfds",
    )
