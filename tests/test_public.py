"""Public is what `__all__` lists; importing jdiff starts nothing, sets nothing, and is light."""

import importlib
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.core

ROOMS = ["data", "denoisers", "metrics", "networks", "report", "sampling", "study", "theory"]
ROOMS += ["training"]
MODULES = ["jdiff", *(f"jdiff.{room}" for room in ROOMS)]


def ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions and modules: as ruff's RUF022 sorts."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", MODULES)
def test_all_is_importable_sorted_and_without_repeats(name):
    module = importlib.import_module(name)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert missing == []
    assert module.__all__ == sorted(set(module.__all__), key=ruff_order)
    assert not [public for public in module.__all__ if public.startswith("_")]


def test_every_public_function_and_class_says_what_it_is():
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            thing = getattr(module, public)
            if callable(thing):
                assert (thing.__doc__ or "").strip(), f"{name}.{public} has no docstring"


def test_the_short_names_are_those_of_the_rooms():
    import jdiff

    for name in jdiff.__all__:
        found = getattr(jdiff, name)
        rooms = [getattr(jdiff, room) for room in ROOMS]
        assert found in rooms + [jdiff.noise, jdiff.parallel] or any(
            getattr(room, name, None) is found and name in room.__all__ for room in rooms
        )


HEAVY = [
    "PIL",
    "array_record",
    "jinja2",
    "matplotlib",
    "orbax",
    "scipy.stats",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tyro",
]

FRESH = f"""
import json, sys
import jax
before = dict(jax.config.values)
import jdiff
from jax._src import xla_bridge
print(json.dumps({{
    "backends": list(xla_bridge._backends),
    "settings": [k for k, v in jax.config.values.items() if before.get(k, "new") != v],
    "heavy": [name for name in {HEAVY} if name in sys.modules],
    "version": jdiff.__version__,
}}))
jax.devices()
print(json.dumps(list(xla_bridge._backends)))
"""


def test_importing_starts_no_backend_changes_no_setting_and_is_light():
    run = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    found, started = (json.loads(line) for line in run.stdout.splitlines())
    assert found.pop("version").count(".") == 2
    assert found == {"backends": [], "settings": [], "heavy": []}
    assert started  # the list of backends is not empty once one was started
    assert run.stderr == ""
