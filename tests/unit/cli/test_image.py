"""`evocell image` over a cache that is not there."""

import json
from pathlib import Path

import pytest
from attrs import field, frozen

from evocell.cli import image
from evocell.cli.image import choose, megabytes, newest_first
from evocell.cli.main import main
from evocell.errors import ImageError


@frozen(kw_only=True)
class Manifest:
    """The shape of `evocell_runtime.cache.ImageManifest`."""

    image_id: str
    created: str
    code_key: str = "c0de" * 8
    wasmtime: str = "49.0.0"
    python: str = "3.15.0"
    warm: tuple[str, ...] = ("numpy", "json")
    layers: tuple[str, ...] = ()
    memory_bytes: int = 42_000_000
    code_bytes: int = 273_000_000
    snapshot_bytes: int = 42_000_000
    snapshot_sha256: str = "00" * 32
    build_s: float = 112.0
    cpu: str = "x86_64"


OLD = Manifest(image_id="aa11" * 8, created="2025-01-01T00:00:00Z")
NEW = Manifest(image_id="ab22" * 8, created="2025-02-01T00:00:00Z")


@frozen
class Cache:
    """Images in memory, some of them damaged."""

    images: list[Manifest] = field(factory=lambda: [OLD, NEW])
    problems: dict[str, list[str]] = field(factory=dict)
    root: Path = Path("/nowhere")

    def list(self):
        return list(self.images)

    def verify(self, image_id):
        return self.problems.get(image_id, [])

    def remove(self, image_id):
        self.images[:] = [kept for kept in self.images if kept.image_id != image_id]

    def size_bytes(self, image_id):
        return 315_000_000


@pytest.fixture
def cache(monkeypatch):
    cache = Cache()
    monkeypatch.setattr(image, "open_cache", lambda directory, config: cache)
    return cache


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
    assert "315 MB" in out


def test_list_of_an_empty_cache_says_how_to_build(cache, capsys):
    cache.images.clear()
    assert main(["image", "list"]) == 0
    assert "`evocell image build`" in capsys.readouterr().out


def test_show_prints_a_line_per_fact(cache, capsys):
    assert main(["image", "show", "aa"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["image_id"] == OLD.image_id
    assert lines["warm"] == "numpy, json"
    assert lines["layers"] == "none"
    assert lines["disk_bytes"] == "315000000"


def test_show_means_the_newest(cache, capsys):
    assert main(["image", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image_id"] == NEW.image_id


def test_verify_looks_at_every_image(cache, capsys):
    assert main(["image", "verify"]) == 0
    assert capsys.readouterr().out == "ab22ab22ab22: sound\naa11aa11aa11: sound\n"


def test_verify_names_the_damage(cache, capsys):
    cache.problems[OLD.image_id] = ["code.cwasm is 12 bytes short"]
    assert main(["image", "verify", "aa11"]) == 1
    assert capsys.readouterr().out == "aa11aa11aa11: code.cwasm is 12 bytes short\n"


def test_verify_of_an_empty_cache(cache, capsys):
    cache.images.clear()
    assert main(["image", "verify"]) == 0
    assert capsys.readouterr().out == "no images to verify\n"


def test_remove_one(cache, capsys):
    assert main(["image", "remove", "aa"]) == 0
    assert cache.images == [NEW]
    assert capsys.readouterr().out == "aa11aa11aa11: removed, 42 MB freed\n"


def test_remove_all_frees_the_shared_interpreter_with_the_last(cache, capsys):
    assert main(["image", "remove", "--all"]) == 0
    assert cache.images == []
    assert capsys.readouterr().out == (
        "aa11aa11aa11: removed, 42 MB freed\nab22ab22ab22: removed, 315 MB freed\n"
    )


@pytest.mark.parametrize("arguments", [[], ["aa", "--all"]])
def test_remove_wants_one_image_or_all(cache, capsys, arguments):
    assert main(["image", "remove", *arguments]) == 2
    assert capsys.readouterr().err == "evocell: name one image to remove, or give --all\n"
    assert len(cache.images) == 2


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("a", f"'a' is the beginning of more than one id; give more of it: {OLD.image_id}, {NEW.image_id}"),
        ("ff", "no image's id begins with 'ff'; there are aa11aa11aa11, ab22ab22ab22"),
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
    same = Manifest(image_id="cc" * 16, created=NEW.created)
    assert newest_first([OLD, NEW, same]) == [same, NEW, OLD]


def test_megabytes():
    assert megabytes(273_400_000) == "273 MB"
