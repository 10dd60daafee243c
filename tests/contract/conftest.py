"""Engines whose images are in a cache of the tests' own, which shares the compiled interpreter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import evocell
from evocell import Config
from evocell_runtime.build import build_image
from evocell_runtime.cache import ImageCache
from evocell_runtime.spec import ImageSpec


@pytest.fixture(scope="session")
def copied_cache(tmp_path_factory) -> Path:
    """A cache of these tests' own, with the default image in it."""
    source, root = ImageCache(), tmp_path_factory.mktemp("frozen") / "cache"
    manifest = build_image(ImageSpec(), source)
    own = ImageCache(root)
    own.prepare()
    link = {"copy_function": lambda a, b: Path(b).hardlink_to(a)}
    shutil.copytree(source.image_dir(manifest.image_id), own.image_dir(manifest.image_id), **link)
    shutil.copytree(source.code_dir(manifest.code_key), own.code_dir(manifest.code_key), **link)
    return root


@pytest.fixture(scope="module", params=[0, 2], ids=["in-process", "processes"])
def engine_of_one(request, copied_cache):
    """An engine whose images are its own."""
    with evocell.Engine(Config.load(workers=request.param, cache_dir=copied_cache)) as made:
        yield made
