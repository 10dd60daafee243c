import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from attrs import evolve

from evocell_runtime.cache import MANIFEST, ImageCache, default_cache_dir, record_of
from evocell_runtime.errors import ImageError
from evocell_runtime.image import Image

MEMBRANE = "membrane.cwasm"
HOLD_THE_LOCK = """
import sys
from evocell_runtime.cache import ImageCache
with ImageCache(sys.argv[1]).lock():
    print(1, flush=True)
    sys.stdin.read()
"""


def of(cache, manifest, name):
    return cache.image_dir(manifest.image_id) / name


def damaged(path, at):
    """Replace a file by a copy with one other byte; a compiled one may be mapped, and shared."""
    whole = bytearray(path.read_bytes())
    whole[at] ^= 0xFF
    path.unlink()
    path.write_bytes(whole)
    path.chmod(0o600)


# ---------------------------------------------------------------------- manifests


def test_a_manifest_is_read_as_it_was_written(built, tmp_path):
    cache, manifest = built
    folder = tmp_path / "images" / manifest.image_id
    folder.mkdir(parents=True)

    cache.write_manifest(folder, manifest)

    assert ImageCache(tmp_path).get(manifest.image_id) == manifest


def test_an_image_is_found_by_its_name_or_an_unambiguous_beginning(built):
    cache, manifest = built

    assert cache.get(manifest.image_id) == cache.get(manifest.image_id[:6]) == manifest
    assert cache.images() == [manifest]
    assert cache.size_bytes(manifest.image_id) == sum(r.size for r in manifest.files.values())
    for name in ("", "zz", "..", "*", "../" + manifest.image_id, "0" * 32):
        assert cache.get(name) is None
        assert cache.size_bytes(name) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"files": 3}',
        '{"files": {"a": {}}}',
        '{"files": {}, "image_id": "other"}',
        "\xff",
    ],
)
def test_a_manifest_that_cannot_be_read_is_no_image(copied, text):
    cache, manifest = copied
    of(cache, manifest, MANIFEST).write_text(text, encoding="latin-1")

    assert cache.get(manifest.image_id) is None
    assert cache.images() == []
    assert cache.verify(manifest.image_id) == [f"there is no image {manifest.image_id} in {cache.root}"]


def test_a_manifest_in_another_images_place_is_no_image(copied):
    cache, manifest = copied
    cache.image_dir(manifest.image_id).rename(cache.root / "images" / ("0" * 32))

    assert cache.get("0" * 32) is None


# ---------------------------------------------------------------------- check and verify


def test_a_sound_image_has_nothing_wrong(built):
    cache, manifest = built

    assert cache.check(manifest) == []
    assert cache.verify(manifest.image_id) == []


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes, not the"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, not the"),
        (lambda path: path.chmod(0o622), "can be written by others"),
        (lambda path: path.chmod(0o620), "can be written by others"),
        (lambda path: damaged(path, 0), "does not begin as compiled code does"),
        (lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))), "is not a regular file"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
    ],
)  # fmt: skip
def test_a_check_finds_what_can_be_seen_without_reading(copied, harm, sentence):
    cache, manifest = copied
    path = of(cache, manifest, MEMBRANE)
    harm(path)

    problems = cache.check(manifest)

    assert len(problems) == 1
    assert problems[0].startswith(str(path))
    assert sentence in problems[0]
    assert cache.verify(manifest.image_id) == problems
    with pytest.raises(ImageError, match="membrane"):
        Image(cache, manifest)


def test_a_check_finds_a_file_of_another_user(built, monkeypatch):
    cache, manifest = built
    monkeypatch.setattr(os, "getuid", lambda: 12345)

    problems = cache.check(manifest)

    assert "belongs to another user" in problems[0]
    assert len(problems) == 1 + len(manifest.files)


@pytest.mark.parametrize("name", [MEMBRANE, "imports.json", "root/evocell/agent.zip"])
def test_only_verify_finds_other_contents(copied, name):
    cache, manifest = copied
    damaged(of(cache, manifest, name), -100)

    assert cache.check(manifest) == []
    assert cache.verify(manifest.image_id) == [
        f"{of(cache, manifest, name)} has other contents than when it was built"
    ]


def test_a_missing_interpreter_is_found(copied):
    cache, manifest = copied
    shutil.rmtree(cache.code_dir(manifest.code_key))

    assert [p.split("/")[-1] for p in cache.check(manifest)] == ["interpreter.cwasm is missing"]


def test_files_are_closed_to_others(built):
    cache, manifest = built
    for path in cache.root.rglob("*"):
        if manifest.code_key not in str(path):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


# ---------------------------------------------------------------------- the directory


def test_a_directory_open_to_others_is_refused(built, tmp_path):
    _, manifest = built
    cache = ImageCache(tmp_path / "cache")
    cache.prepare()
    assert stat.S_IMODE(cache.root.stat().st_mode) == 0o700

    for mode in (0o701, 0o710, 0o755, 0o777):
        cache.root.chmod(mode)
        with pytest.raises(ImageError, match=f"{cache.root} is open to others; run: chmod 700 {cache.root}"):
            cache.prepare()
        assert cache.check(manifest)[0] == f"{cache.root} is open to others; run: chmod 700 {cache.root}"


def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)

    with pytest.raises(ImageError, match="belongs to another user; set EVOCELL_CACHE_DIR"):
        ImageCache(tmp_path).prepare()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ImageError, match="cannot be made: Not a directory; set EVOCELL_CACHE_DIR elsewhere"):
        ImageCache(tmp_path / "file" / "cache").prepare()


def test_a_directory_that_is_not_there_holds_nothing(tmp_path, built):
    cache = ImageCache(tmp_path / "missing")

    assert cache.images() == []
    assert cache.get("ab") is None
    assert cache.check(built[1])[0] == f"{cache.root} does not exist"


def test_the_place_can_be_set_from_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOCELL_CACHE_DIR", str(tmp_path))
    assert default_cache_dir() == tmp_path == ImageCache().root
    monkeypatch.delenv("EVOCELL_CACHE_DIR")
    assert default_cache_dir().name == "evocell"


# ---------------------------------------------------------------------- writing


def test_removing_an_image_takes_its_interpreter_only_when_nobody_else_uses_it(copied):
    cache, manifest = copied
    other = evolve(manifest, image_id="f" * 32)
    shutil.copytree(cache.image_dir(manifest.image_id), cache.image_dir(other.image_id))
    cache.write_manifest(cache.image_dir(other.image_id), other)

    cache.remove(manifest.image_id)
    assert [m.image_id for m in cache.images()] == [other.image_id]
    assert cache.code_dir(manifest.code_key).is_dir()
    cache.remove(manifest.image_id)
    cache.remove(other.image_id)

    assert cache.images() == []
    assert not cache.code_dir(manifest.code_key).exists()
    assert sorted(p.name for p in cache.root.iterdir()) == ["code", "images"]


def test_removing_an_image_does_not_harm_a_guest_that_runs(copied, run):
    cache, manifest = copied
    image = Image(cache, manifest)
    instance = image.fork()

    cache.remove(manifest.image_id)

    assert run(instance, "print(sum(range(100_000)))").stdout == b"4999950000\n"
    instance.close()


def test_a_new_directory_appears_whole_or_not_at_all(tmp_path):
    cache = ImageCache(tmp_path)
    cache.prepare()
    target = cache.root / "images" / "ab"
    with cache.new_directory(target) as made:
        (made / "first").touch()
        assert not target.exists()
    interrupted = cache.new_directory(target)
    (interrupted.__enter__() / "second").touch()
    assert not interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    assert [p.name for p in target.iterdir()] == ["first"]
    with cache.new_directory(target) as made:
        (made / "third").touch()
    assert [p.name for p in target.iterdir()] == ["third"]
    assert sorted(p.name for p in cache.root.iterdir()) == ["code", "images"]


def test_a_sweep_removes_what_killed_builds_left_and_nothing_else(tmp_path):
    cache = ImageCache(tmp_path)
    cache.prepare()
    for name in (".new-abc", ".removed-xyz"):
        (cache.root / name / "deep").mkdir(parents=True)
        (cache.root / name / "deep" / "file").touch()
    (cache.root / "kept").mkdir()

    cache.sweep()

    assert sorted(p.name for p in cache.root.iterdir()) == ["code", "images", "kept"]


def test_the_lock_is_held_by_one_and_let_go_by_the_dead(tmp_path):
    cache = ImageCache(tmp_path)
    cache.prepare()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout.readline() == b"1\n"
    waited = []

    def waiting(seconds):
        waited.append(seconds)
        holder.kill()

    with cache.lock(waiting):
        assert waited
        assert waited[0] >= 0
    with holder:
        pass


def test_a_record_is_size_and_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")

    record = record_of(tmp_path / "a")

    assert record.size == 3
    assert record.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_manifest_tells_what_the_image_is(built):
    cache, manifest = built
    raw = json.loads(of(cache, manifest, MANIFEST).read_text())

    assert raw["warm"] == list(manifest.warm) == []
    assert (manifest.python, manifest.memory_bytes % 65536) == ("3.15", 0)
    data = {name for name in manifest.files if name.startswith("root/usr/local/share/matplotlib/mpl-data/")}
    assert len(data) > 100
    assert set(manifest.files) - data == {
        "interpreter.cwasm", "membrane.cwasm", "imports.json", "root/evocell/agent.zip",
        "root/usr/local/lib/python315.zip", "root/usr/local/bin/python.wasm", "root/dev/null",
    }  # fmt: skip
