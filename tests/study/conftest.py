"""One tiny finished study, shared by all tests of the room; those that change it take a copy."""

import json
import shutil

import numpy as np
import pytest

from jdiff.study import Budget, Study, run

MLP = "mlp:width=16,depth=2"


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    """32 training and 40 held-out images, 8x8x1 and smooth, of two classes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (72, 2, 2, 1)).repeat(4, 1).repeat(4, 2)
    images = np.clip(images + rng.integers(-20, 21, (72, 8, 8, 1)), 0, 255).astype(np.uint8)
    labels = np.arange(72) % 2
    path = tmp_path_factory.mktemp("data") / "blocks.npz"
    np.savez(
        path,
        train_images=images[:32],
        train_labels=labels[:32],
        test_images=images[32:],
        test_labels=labels[32:],
    )
    return f"npz:{path}"


@pytest.fixture(scope="session")
def make_study(data):
    """A tiny study with fields replaced; networks of all of them share one compiled step.

    So few images are searched for neighbours without a compiled program, which has its own tests.
    """

    def make(**fields) -> Study:
        return Study(
            **{
                "name": "tiny",
                "data": data,
                "architectures": ("optimal", "linear", MLP),
                "num_train": (24,),
                "budget": Budget(10),
                "batch_size": 8,
                "num_samples": 24,
                "sigmas": "karras:4",
                "seed": 3,
                **fields,
            }
        )

    return make


@pytest.fixture(scope="session")
def finished(make_study, tmp_path_factory):
    """The directory of a study of two closed forms and a network of three seeds."""
    out = tmp_path_factory.mktemp("study") / "tiny"
    run(make_study(seeds=(0, 1, 2)), out, progress=False)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished study that a test may change."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="session")
def records():
    """Function: study directory -> the rows of its results.json, by run directory's name."""

    def read(path) -> dict:
        refuse = lambda name: pytest.fail(f"{name} is no JSON")
        results = json.loads((path / "results.json").read_text(), parse_constant=refuse)
        return {
            f"{row['label']} n{row['num_train']} s{row['seed']}": row for row in results["rows"]
        }

    return read


@pytest.fixture(scope="session")
def snapshot():
    """Function: directory -> what each file holds and when it was written."""

    def take(path) -> dict:
        return {
            str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes())
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }

    return take
