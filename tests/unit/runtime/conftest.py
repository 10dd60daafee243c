"""The image for tests that need a guest, and caches that share its compiled interpreter."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from evocell_runtime import artifacts
from evocell_runtime.cache import ImageCache
from evocell_runtime.calls import CallLimits
from evocell_runtime.image import Image, open_image
from evocell_runtime.instance import Instance
from evocell_runtime.patches import CODE_PATCHES
from evocell_runtime.patches.layer import apply_patches
from evocell_runtime.rewrite import split
from evocell_runtime.spec import ImageSpec

SMALL = ImageSpec(warm=())
"""The quickest image to build: no module is imported before the freeze."""


@pytest.fixture(scope="session")
def image() -> Image:
    """The default image, built if there is none yet."""
    return open_image(ImageSpec(), ImageCache())


@pytest.fixture(scope="session")
def parts():
    """The interpreter with its patches, split into code and data."""
    return split(apply_patches(artifacts.read_checked(artifacts.locate().wasm), CODE_PATCHES))


@pytest.fixture
def guest(image) -> Instance:
    instance = image.fork()
    yield instance
    instance.close()


@pytest.fixture
def run():
    """Run a program in an instance to its end."""

    def run(instance, program, request=b"", *, fuel=10**10, **limits):
        call = instance.start(program.encode(), request, CallLimits(fuel=fuel, **limits))
        while not call.poll():
            pass
        return call.finish()

    return run


def with_code_of(image: Image, root: Path) -> ImageCache:
    """An otherwise empty cache that has the compiled interpreter."""
    cache = ImageCache(root)
    cache.prepare()
    source = ImageCache().code_dir(image.manifest.code_key)
    target = cache.code_dir(image.manifest.code_key)
    target.mkdir(mode=0o700)
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)
    return cache


@pytest.fixture
def cache(image, tmp_path) -> ImageCache:
    """A cache of the test's own, with the compiled interpreter and no image."""
    return with_code_of(image, tmp_path / "cache")


@pytest.fixture(scope="module")
def built(image, tmp_path_factory):
    """A cache with one small image, for tests that leave it as it is: the cache and the image's manifest."""
    from evocell_runtime.build import build_image

    cache = with_code_of(image, tmp_path_factory.mktemp("built") / "cache")
    return cache, build_image(SMALL, cache)


@pytest.fixture
def copied(built, tmp_path):
    """The same, as a copy to be damaged."""
    cache, manifest = built
    own = ImageCache(tmp_path / "cache")
    shutil.copytree(cache.root / "images", own.root / "images")
    shutil.copytree(cache.root / "code", own.root / "code", copy_function=os.link)
    own.root.chmod(0o700)
    return own, manifest
