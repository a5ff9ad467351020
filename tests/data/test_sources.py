"""load(): what each scheme gives, and what each refuses and how it says so."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.stats
from sklearn.datasets import load_digits

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


@pytest.mark.core
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", r"spec is 'digit'\. Did you mean 'digits'\? Accepted: digits, folder:TRAIN,HELD"),
        ("mnist", r"spec is 'mnist'\. Accepted: .*tfds:NAME\[:SPLIT\], toy:NAME"),
        ("", "spec is ''"),
        ("npz", "spec 'npz' must have the form npz:PATH"),
        ("tfds:", r"spec 'tfds:' must have the form tfds:NAME\[:SPLIT\]"),
        ("digits:8x8", "spec 'digits:8x8' must have the form digits"),
        ("digits:", "spec 'digits:' must have the form digits"),
    ],
)
def test_malformed_spec(spec, message):
    refuses(message, spec)


def test_spec_that_is_no_string():
    refuses("spec must be a string such as 'digits'; got int", 3, error=TypeError)


def test_the_error_lists_every_scheme_that_load_knows():
    with pytest.raises(ValueError, match="Accepted") as caught:
        load("nothing")
    assert all(form in str(caught.value) for form, _ in sources.SCHEMES.values())
    assert set(sources.SCHEMES) == {"digits", "npz", "folder", "tfds", "toy"}


def test_import_starts_no_backend_and_loads_no_reader():
    program = (
        "import sys, jdiff.data, jax._src.xla_bridge as b; assert not b._backends; "
        "print([m for m in ('tensorflow_datasets', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.core
def test_digits_split_and_pixels():
    d = load("digits")
    assert (d.name, d.image_shape, d.num_classes) == ("digits", (8, 8, 1), 10)
    assert (d.num_train, len(d.held_out)) == (1437, 360)
    order = np.random.default_rng(0).permutation(1797)
    raw: Any = load_digits()
    ours = np.concatenate([d.images, d.held_out])[..., 0]
    # Grey levels 0..16 become 0..255; round half to even takes 8 (127.5) to 128.
    table = [round(level * 255 / 16) for level in range(17)]
    np.testing.assert_array_equal(
        ours, np.take(table, raw["data"].astype(int))[order].reshape(-1, 8, 8)
    )
    np.testing.assert_array_equal(np.r_[d.labels, d.held_out_labels], raw["target"][order])


@pytest.mark.core
def test_digits_classes_are_those_of_the_published_set_and_both_sides_have_all():
    d = load("digits")
    train, held = np.bincount(np.asarray(d.labels)), np.bincount(np.asarray(d.held_out_labels))
    # Class counts of the UCI test set, as scikit-learn's description has them.
    np.testing.assert_array_equal(train + held, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert train.min() > 120
    assert held.min() > 20


def test_digits_held_out_has_the_distribution_of_the_training_images():
    def frechet(a, b):
        a, b = (x.reshape(len(x), -1) / 255 for x in (a, b))
        s, t = np.cov(a.T), np.cov(b.T)
        root = np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum()
        return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root

    d = load("digits")
    raw: Any = load_digits()
    in_file_order = np.rint(raw["images"] * 255 / 16)
    # Both numbers are from the project's contracts, to their three digits.
    assert frechet(d.images, d.held_out) == pytest.approx(0.103, abs=5e-4)
    assert frechet(in_file_order[:-360], in_file_order[-360:]) == pytest.approx(0.273, abs=5e-4)


def test_digits_are_the_same_each_time_and_take_no_held_out():
    assert load("digits").fingerprint() == load("digits").fingerprint()
    refuses("held_out must be None for data with its own 360.*got 0.2", "digits", held_out=0.2)


@pytest.mark.core
@pytest.mark.parametrize("name", sources.TOYS)
def test_toy_shapes_and_fresh_held_out_points(name):
    d = load(f"toy:{name}")
    channels = 1 if name in ("two_points", "gaussian_1d") else 2
    assert d.images.dtype == d.held_out.dtype == np.float32
    assert d.image_shape == (1, 1, channels)
    assert d.num_train == (2 if name == "two_points" else 1000)
    assert d.held_out.shape == (1000, 1, 1, channels)
    assert d.labels is None
    if name != "two_points":
        assert not {x.tobytes() for x in d.images} & {x.tobytes() for x in d.held_out}
    assert load(f"toy:{name.replace('_', '-')}").fingerprint() == d.fingerprint()


@pytest.mark.core
def test_two_points_is_exactly_two_points_and_held_out_draws_from_them():
    d = load("toy:two_points")
    assert d.images.ravel().tolist() == [-1.0, 1.0]
    assert set(d.held_out.ravel()) == {-1.0, 1.0}
    assert abs(d.held_out.mean()) < 0.127  # 4 standard deviations of 1 / sqrt(1000).


@pytest.mark.parametrize("part", ["images", "held_out"])
def test_gaussians_have_the_stated_moments(part):
    x = getattr(load("toy:gaussian_1d"), part).ravel()
    assert scipy.stats.kstest(x / 0.5, "norm").pvalue > 1e-3
    xy = getattr(load("toy:gaussian_2d"), part).reshape(-1, 2).astype(np.float64)
    # Whitened by the stated covariance it is N(0, I): each entry of the mean within 4 / sqrt(n),
    # of the covariance within 4 sqrt(2 / n).
    cov = np.array([[0.25, 0.12], [0.12, 0.09]])
    white = np.linalg.solve(np.linalg.cholesky(cov), xy.T)
    assert np.abs(white.mean(axis=1)).max() < 0.127
    assert np.abs(np.cov(white) - np.eye(2)).max() < 0.179


@pytest.mark.parametrize("part", ["images", "held_out"])
def test_ring_and_moons_lie_on_their_curves(part):
    ring = getattr(load("toy:ring"), part).reshape(-1, 2).astype(np.float64)
    # Noise of deviation 0.03 in each direction; 5 of them are never exceeded by 1000 points.
    radius = np.linalg.norm(ring, axis=1)
    assert np.abs(radius - 0.8).max() < 0.15
    assert radius.std() == pytest.approx(0.03, rel=0.1)
    moons = getattr(load("toy:two_moons"), part).reshape(-1, 2).astype(np.float64)
    t = np.linspace(0, np.pi, 2000)
    upper = (np.stack([np.cos(t), np.sin(t)], 1) - [0.5, 0.25]) / 1.5
    lower = (np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1) - [0.5, 0.25]) / 1.5
    to = [np.linalg.norm(moons[:, None] - c, axis=2).min(1) for c in (upper, lower)]
    assert np.minimum(*to).max() < 0.15
    # Half of the points on each moon: 4 deviations of a binomial count.
    assert abs(np.mean(to[0] < to[1]) - 0.5) < 0.064
    assert np.abs(moons.mean(0)).max() < 0.1


def test_toy_refusals():
    refuses(r"toy data is 'moons'\. Did you mean 'two_moons'.*Accepted: gaussian_1d", "toy:moons")
    refuses("held_out must be None for data with its own 1,000", "toy:ring", held_out=0.5)


@pytest.mark.core
@pytest.mark.parametrize(
    "keys",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images", "labels", "held_out", "held_out_labels"),
    ],
)
def test_npz_gives_what_was_saved(tmp_path, keys):
    saved = [noise_images(6), np.arange(6, dtype=np.uint8), noise_images(3, seed=1), np.arange(3)]
    np.savez_compressed(
        tmp_path / "a.npz", **dict(zip(keys, saved, strict=True)), label_names=["a"]
    )
    d = load(f"npz:{tmp_path / 'a.npz'}")
    for got, wanted in zip((d.images, d.labels, d.held_out, d.held_out_labels), saved, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert d.num_classes == 6


def test_npz_weights_and_float_images(tmp_path):
    images = noise_images(4) / 127.5 - 1
    np.savez(tmp_path / "a.npz", images=images, held_out=images, weights=[1, 2, 3, 4])
    d = load(f"npz:{tmp_path / 'a.npz'}")
    assert d.images.dtype == np.float32
    np.testing.assert_allclose(np.asarray(d.weights), [0.1, 0.2, 0.3, 0.4])


def test_npz_fraction_is_split_by_key_zero(tmp_path):
    np.savez(tmp_path / "a.npz", images=noise_images(20), labels=np.arange(20))
    d = load(f"npz:{tmp_path / 'a.npz'}", held_out=0.25)
    order = np.asarray(jax.random.permutation(jax.random.key(0), 20))
    np.testing.assert_array_equal(d.held_out_labels, order[:5])
    np.testing.assert_array_equal(d.labels, order[5:])
    np.testing.assert_array_equal(d.images, noise_images(20)[order[5:]])


@pytest.mark.parametrize(
    ("arrays", "held_out", "message"),
    [
        ({"x_train": noise_images(2)}, 0.5, r"holds no train_images \(or images\); its keys: x_tr"),
        ({}, 0.5, "its keys: none"),
        ({"images": noise_images(4)}, None, "held_out= is missing"),
        ({"images": noise_images(4)}, 1.5, r"held_out \(a fraction\) must be in \(0\.0, 1\.0\)"),
        (
            {"images": noise_images(4), "test_images": noise_images(4)},
            0.5,
            "held_out must be None for data with its own held-out images in the file; got 0.5",
        ),
        (
            {"images": noise_images(4), "train_images": noise_images(4)},
            0.5,
            "holds both train_images and images; keep one",
        ),
        ({"images": noise_images(4)[..., 0]}, 0.5, r"images must have shape \[N, .*got rank 3"),
        ({"images": np.array([noise_images(1), None], object)}, 0.5, "cannot read .*Object arrays"),
        (
            {"images": noise_images(4), "labels": np.arange(3)},
            0.5,
            r"labels must have shape \(4,\)",
        ),
    ],
)
def test_npz_refusals_name_the_file(tmp_path, arrays, held_out, message):
    np.savez(tmp_path / "a.npz", **arrays)
    refuses(r"spec 'npz:.*a\.npz': .*" + message, f"npz:{tmp_path}/a.npz", held_out=held_out)


def test_npz_wrong_types(tmp_path):
    np.savez(tmp_path / "a.npz", images=noise_images(4), labels=np.arange(4.0))
    spec = f"npz:{tmp_path}/a.npz"
    refuses("held_out .* must be a number; got 'test'", spec, held_out="test", error=TypeError)
    refuses(r"a\.npz': labels must be integers", spec, held_out=0.5, error=TypeError)


def test_npz_unreadable_files(tmp_path):
    refuses("there is no file .*missing.npz", f"npz:{tmp_path}/missing.npz")
    np.save(tmp_path / "one.npy", noise_images(2))
    refuses("one.npy is not an npz file", f"npz:{tmp_path}/one.npy")
    (tmp_path / "text.npz").write_text("not a zip")
    refuses("text.npz is not an npz file", f"npz:{tmp_path}/text.npz")
    np.savez_compressed(tmp_path / "a.npz", images=noise_images(50))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refuses("cut.npz is not an npz file", f"npz:{tmp_path}/cut.npz")
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    (tmp_path / "flipped.npz").write_bytes(flipped)
    refuses("cannot read .*flipped.npz: ", f"npz:{tmp_path}/flipped.npz")


@needs_shared
@pytest.mark.parametrize(
    ("file", "shape", "counts", "mean"),
    [
        ("orl_faces64", (320, 64, 64, 1), [8] * 40, 0.4629),
        ("noto_emoji32", (1703, 32, 32, 3), [77, 143, 235, 118, 237, 343, 152, 202, 196], 0.7676),
    ],
)
def test_real_npz_files(file, shape, counts, mean):
    d = load(f"npz:{SHARED / file}.npz")
    assert d.images.shape == shape
    assert d.num_classes == len(counts)
    # Counts and means are those of the data's README (emoji: the mean of its three channels).
    assert np.bincount(np.asarray(d.labels)).tolist() == counts
    assert d.images.mean() / 255 == pytest.approx(mean, abs=1e-4)


def save(folder: Path, names: list[str], images: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        PIL.Image.fromarray(image.squeeze()).save(folder / name)


@pytest.mark.core
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "rgb"])
def test_folder_round_trip_in_sorted_order(tmp_path, channels):
    images, held = noise_images(4, channels), noise_images(2, channels, seed=1)
    save(tmp_path / "train", ["d.png", "B.PNG", "a.png", "c.png"], images)
    save(tmp_path / "test", ["0.png", "1.png"], held)
    (tmp_path / "train" / ".DS_Store").write_text("hidden files are no images")
    d = load(f"folder:{tmp_path}/train,{tmp_path}/test")
    np.testing.assert_array_equal(d.images, images[[1, 2, 3, 0]])  # B, a, c, d: by code point.
    np.testing.assert_array_equal(d.held_out, held)
    assert d.labels is None
    assert d.num_classes is None
    assert d.image_shape == (5, 6, channels)


def test_folder_reads_jpeg_as_the_decoder_gives_it(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (16, 16, 3))
    save(tmp_path / "train", ["a.jpg", "b.jpeg"], np.stack([smooth, smooth]))
    d = load(f"folder:{tmp_path}/train", held_out=0.5)
    assert d.images.shape == (1, 16, 16, 3)
    # A smooth ramp survives JPEG to a few grey levels.
    assert np.abs(d.images[0].astype(int) - smooth).max() <= 6


@pytest.mark.core
def test_subfolders_are_classes_by_sorted_name(tmp_path):
    images = noise_images(6)
    save(tmp_path / "train" / "dog", ["1.png", "2.png", "3.png"], images[:3])
    save(tmp_path / "train" / "cat", ["9.png"], images[3:4])
    save(tmp_path / "test" / "dog", ["a.png"], images[4:5])
    save(tmp_path / "test" / "cat", ["b.png"], images[5:])
    d = load(f"folder:{tmp_path}/train,{tmp_path}/test")
    np.testing.assert_array_equal(d.images, images[[3, 0, 1, 2]])
    assert np.asarray(d.labels).tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(d.held_out, images[[5, 4]])
    assert np.asarray(d.held_out_labels).tolist() == [0, 1]
    assert d.num_classes == 2


def rgba(path: Path) -> None:
    PIL.Image.new("RGBA", (6, 5)).save(path)


def palette(path: Path) -> None:
    PIL.Image.new("P", (6, 5)).save(path)


def sixteen_bits(path: Path) -> None:
    PIL.Image.new("I;16", (6, 5)).save(path)


def transparent_colour(path: Path) -> None:
    PIL.Image.new("RGB", (6, 5)).save(path, transparency=(0, 0, 0))


def another_size(path: Path) -> None:
    PIL.Image.new("RGB", (5, 6)).save(path)


def grey(path: Path) -> None:
    PIL.Image.new("L", (6, 5)).save(path)


def cut_short(path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise_images(1)[0]).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:-40])


def text(path: Path) -> None:
    path.write_text("no picture")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (rgba, r"cannot use .*z\.png: images must be 8-bit grey \(L\) or RGB; got mode RGBA"),
        (palette, r"z\.png: .*got mode P\."),
        (sixteen_bits, r"z\.png: .*got mode I;16"),
        (transparent_colour, r"z\.png: .*got mode RGB with transparency"),
        (another_size, r"a\.png has \(5, 6, 3\), .*z\.png has \(6, 5, 3\)"),
        (grey, r"a\.png has \(5, 6, 3\), .*z\.png has \(5, 6, 1\)"),
        (cut_short, r"cannot use .*z\.png"),
        (text, r"cannot use .*z\.png: cannot identify image"),
    ],
)
def test_folder_refuses_an_image_by_its_name(tmp_path, write, message):
    save(tmp_path / "train", ["a.png", "b.png"], noise_images(2))
    write(tmp_path / "train" / "z.png")
    refuses(message, f"folder:{tmp_path}/train", held_out=0.5)


def test_folder_refusals(tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    save(train, ["a.png", "b.png"], noise_images(2))
    test.mkdir()
    refuses("there is no folder .*nowhere", f"folder:{tmp_path}/nowhere,{test}")
    refuses(r"test is empty; it must hold PNG or JPEG", f"folder:{train},{test}")
    refuses("must not be the same", f"folder:{train},{test}/../train")
    for wrong in (f"{train},{test},{test}", f",{train}", f"{train},"):
        refuses("folder takes two paths with a comma between", f"folder:{wrong}")
    refuses("held_out= is missing", f"folder:{train}")
    refuses(r"held_out \(a fraction\) must be in", f"folder:{train}", held_out=3)
    save(test, ["a.png"], noise_images(1, seed=1))
    refuses("held_out must be None.*own held-out folder", f"folder:{train},{test}", held_out=0.5)
    (test / "notes.txt").write_text("x")
    refuses(r"notes\.txt is neither a PNG nor a JPEG file", f"folder:{train},{test}")
    (test / "notes.txt").unlink()
    (test / "a.png").unlink()
    save(test, ["a.png"], noise_images(1, side=7))
    refuses(r"held_out must be images of shape \(5, 6, 3\); got \(7, 8", f"folder:{train},{test}")


def test_folder_refusals_of_classes(tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    save(train / "cat", ["a.png"], noise_images(1))
    save(train / "dog", ["a.png"], noise_images(1))
    save(test / "cat", ["a.png"], noise_images(1))
    spec = f"folder:{train},{test}"
    refuses("same class subfolders; got cat, dog and cat", spec)
    (test / "dog").mkdir()
    refuses("test/dog is empty", spec)
    (test / "dog" / "deeper").mkdir()
    refuses("deeper is neither a PNG nor a JPEG", spec)
    save(train, ["flat.png"], noise_images(1))
    refuses("train holds both files and subfolders", spec)


# TFDS -------------------------------------------------------------------------------------------
