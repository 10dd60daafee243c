"""What several files of these tests share: engines, some with a cache of the tests' own, and examples to import."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

import evocell
from evocell import Config
from evocell_runtime.build import build_image
from evocell_runtime.cache import ImageCache
from evocell_runtime.spec import ImageSpec


@pytest.fixture(scope="module")
def sandboxes():
    """An engine of two workers for what lives longer than a test."""
    with evocell.Engine(Config.load(workers=2)) as made:
        yield made


@pytest.fixture(scope="module")
def example(request):
    """The example that the test module names in `EXAMPLE`, imported."""
    name = request.module.EXAMPLE
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def copied_cache(tmp_path_factory) -> Path:
    """A cache of these tests' own, with the default image in it."""
    return _copied(tmp_path_factory.mktemp("frozen") / "cache")


@pytest.fixture(scope="session")
def copy_cache():
    """What makes further caches of that kind."""
    return _copied


def _copied(root: Path) -> Path:
    source = ImageCache()
    manifest = build_image(ImageSpec(), source)
    own = ImageCache(root)
    own.prepare()
    link = {"copy_function": lambda a, b: Path(b).hardlink_to(a)}
    shutil.copytree(source.image_dir(manifest.image_id), own.image_dir(manifest.image_id), **link)
    shutil.copytree(source.code_dir(manifest.code_key), own.code_dir(manifest.code_key), **link)
    return root


@pytest.fixture(
    scope="module",
    params=[pytest.param(0, marks=pytest.mark.slow, id="in-process"), pytest.param(2, id="processes")],
)
def engine_of_one(request, copied_cache):
    """An engine whose images are its own."""
    with evocell.Engine(Config.load(workers=request.param, cache_dir=copied_cache)) as made:
        yield made
