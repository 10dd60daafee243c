"""`evocell image` over a cache of two small images that share a compiled interpreter."""

import json
import mmap

import pytest

from evocell.cli.image import choose, images_to_build, megabytes, newest_first
from evocell.cli.main import main
from evocell.errors import ImageError
from evocell_runtime.cache import ImageCache, ImageManifest, record_of
from evocell_runtime.errors import ImageError as RuntimeImageError

CODE_KEY = "c0de" * 8
CODE_BYTES = 5_000_000
SNAPSHOT_BYTES = 2_000_000
IMAGE_BYTES = CODE_BYTES + SNAPSHOT_BYTES


def manifest_of(image_id, created, **changes):
    known = {
        "image_id": image_id,
        "code_key": CODE_KEY,
        "created": created,
        "wasmtime": "49.0.0",
        "python": "3.15.0",
        "warm": ("numpy", "json"),
        "layers": (),
        "memory_bytes": 42_000_000,
        "code_bytes": CODE_BYTES,
        "snapshot_bytes": SNAPSHOT_BYTES,
        "snapshot_sha256": "00" * 32,
        "build_s": 112.0,
        "cpu": "x86_64",
        "hot_pages": ((0, 3 * mmap.PAGESIZE), (1 << 20, mmap.PAGESIZE)),
        "files": {},
    }
    return ImageManifest(**known | changes)


OLD = manifest_of("aa11" * 8, "2025-01-01T00:00:00Z")
NEW = manifest_of("ab22" * 8, "2025-02-01T00:00:00Z")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """The cache that the commands find through the environment."""
    monkeypatch.setenv("EVOCELL_CACHE_DIR", str(tmp_path / "cache"))
    cache = ImageCache(tmp_path / "cache")
    cache.prepare()
    return cache


@pytest.fixture
def cache(empty_cache):
    """The same with two images."""
    write_file(empty_cache.code_dir(CODE_KEY) / "interpreter.cwasm", CODE_BYTES)
    for manifest in (OLD, NEW):
        write_image(empty_cache, manifest)
    return empty_cache


def write_file(path, size):
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"\x7fELF".ljust(size, b"\0"))
    path.chmod(0o600)


def write_image(cache, manifest):
    folder = cache.image_dir(manifest.image_id)
    write_file(folder / "membrane.cwasm", SNAPSHOT_BYTES)
    files = {
        "interpreter.cwasm": record_of(cache.code_dir(CODE_KEY) / "interpreter.cwasm"),
        "membrane.cwasm": record_of(folder / "membrane.cwasm"),
    }
    cache.write_manifest(folder, manifest_of(manifest.image_id, manifest.created, files=files))


def damage(cache, image_id):
    """Change one byte and nothing that can be seen from outside."""
    path = cache.image_dir(image_id) / "membrane.cwasm"
    with path.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"!")
    return path


def ids(cache):
    return [manifest.image_id for manifest in cache.images()]


def test_list_puts_the_newest_first(cache, capsys):
    assert main(["image", "list", "--json"]) == 0
    assert [known["image_id"] for known in json.loads(capsys.readouterr().out)] == [
        NEW.image_id,
        OLD.image_id,
    ]


def test_list_as_a_table(cache, capsys):
    assert main(["image", "list"]) == 0
    out = capsys.readouterr().out
    assert "ab22ab22ab22" in out
    assert "7 MB" in out
    assert out.endswith("9 MB together; images of the same interpreter share its code, 5 MB\n")


def test_list_of_an_empty_cache_says_how_to_build(empty_cache, capsys):
    assert main(["image", "list"]) == 0
    assert "`evocell image build`" in capsys.readouterr().out


def test_show_prints_a_line_per_fact(cache, capsys):
    assert main(["image", "show", "aa"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["image_id"] == OLD.image_id
    assert lines["warm"] == "numpy, json"
    assert lines["layers"] == "none"
    assert lines["disk_bytes"] == str(IMAGE_BYTES)
    assert lines["hot_pages"] == "4"
    assert "files" not in lines


@pytest.mark.parametrize(
    ("packages", "everything", "names"),
    [
        ([], False, ["base"]),
        (["scipy"], False, ["scipy"]),
        (["scipy", "pandas"], False, ["all"]),
        ([], True, ["base", "networkx", "matplotlib", "sympy", "pandas", "scipy", "sklearn", "all"]),
    ],
)
def test_images_are_built_by_what_code_imports(packages, everything, names):
    assert images_to_build(packages, everything=everything) == names


def test_a_package_without_an_image_is_named(empty_cache, capsys):
    assert main(["image", "build", "--with", "numpy"]) != 0
    assert "'numpy'" in capsys.readouterr().err
    assert main(["image", "build", "--with", "scipy", "--warm", "json"]) != 0
    assert "--warm makes an image of its own" in capsys.readouterr().err


def test_another_cache_can_be_named(cache, tmp_path, capsys):
    assert main(["image", "list", "--json", "--cache-dir", str(tmp_path / "other")]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show_means_the_newest(cache, capsys):
    assert main(["image", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image_id"] == NEW.image_id


def test_verify_looks_at_every_image(cache, capsys):
    assert main(["image", "verify"]) == 0
    assert capsys.readouterr().out == "ab22ab22ab22: sound\naa11aa11aa11: sound\n"


def test_verify_names_the_damage(cache, capsys):
    path = damage(cache, OLD.image_id)
    assert main(["image", "verify"]) == 1
    assert capsys.readouterr().out == (
        f"ab22ab22ab22: sound\naa11aa11aa11: {path} has other contents than when it was built\n"
    )
    assert main(["image", "verify", "ab22"]) == 0


def test_verify_names_every_file_that_is_missing(cache, capsys):
    shared = cache.code_dir(CODE_KEY) / "interpreter.cwasm"
    own = cache.image_dir(OLD.image_id) / "membrane.cwasm"
    shared.unlink()
    own.unlink()
    assert main(["image", "verify", "aa11"]) == 1
    assert capsys.readouterr().out == f"aa11aa11aa11: {shared} is missing\naa11aa11aa11: {own} is missing\n"


def test_verify_of_an_empty_cache(empty_cache, capsys):
    assert main(["image", "verify"]) == 0
    assert capsys.readouterr().out == "no images to verify\n"


def test_remove_one(cache, capsys):
    assert main(["image", "remove", "aa"]) == 0
    assert ids(cache) == [NEW.image_id]
    assert cache.verify(NEW.image_id) == []
    assert capsys.readouterr().out == "aa11aa11aa11: removed, 2 MB freed\n"


def test_remove_all_frees_the_shared_interpreter_with_the_last(cache, capsys):
    assert main(["image", "remove", "--all"]) == 0
    assert ids(cache) == []
    assert not cache.code_dir(CODE_KEY).exists()
    assert capsys.readouterr().out == (
        "ab22ab22ab22: removed, 2 MB freed\naa11aa11aa11: removed, 7 MB freed\n"
    )


@pytest.mark.parametrize("arguments", [[], ["aa", "--all"]])
def test_remove_wants_one_image_or_all(cache, capsys, arguments):
    assert main(["image", "remove", *arguments]) == 2
    assert capsys.readouterr().err == "evocell: name one image to remove, or give --all\n"
    assert len(ids(cache)) == 2


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("a", f"'a' is the beginning of more than one id; give more of it: {OLD.image_id}, {NEW.image_id}"),
        ("ff", "no image is named 'ff', and no id begins so; there are aa11aa11aa11, ab22ab22ab22"),
    ],
)
def test_an_id_that_does_not_choose_is_an_error(wanted, sentence):
    with pytest.raises(ImageError) as caught:
        choose(wanted, [OLD, NEW])
    assert str(caught.value) == sentence


def test_nothing_to_choose_from():
    with pytest.raises(ImageError, match="holds no image"):
        choose(None, [])


def test_newest_first_is_stable_for_equal_times():
    same = manifest_of("cc" * 16, NEW.created)
    assert newest_first([OLD, NEW, same]) == [same, NEW, OLD]


def test_megabytes():
    assert megabytes(273_400_000) == "273 MB"


def test_an_image_is_listed_shown_and_removed_by_its_name(cache, capsys):
    cache.set_name("warm-data", OLD.image_id)

    assert main(["image", "list"]) == 0
    assert "warm-data" in capsys.readouterr().out
    assert main(["image", "show", "warm-data", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["image_id"], shown["names"]) == (OLD.image_id, ["warm-data"])
    assert main(["image", "remove", "warm-data"]) == 0
    assert cache.names() == {}
    assert [manifest.image_id for manifest in cache.images()] == [NEW.image_id]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "ab" * 16])
def test_what_cannot_be_a_name_is_refused(cache, name):
    with pytest.raises(RuntimeImageError, match="cannot be named"):
        cache.set_name(name, OLD.image_id)
