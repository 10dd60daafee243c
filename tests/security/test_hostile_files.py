"""Exported sandboxes and images that nobody vouches for: each lie is named, and the engine stays healthy."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from attrs import evolve

import evocell
from evocell import Config, Limits
from evocell.execution.archive import Archive, read_archive, write_archive
from evocell_guest.values import encode
from evocell_runtime.cache import ImageCache

SOURCE = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n"
LIMITS = Limits(memory_bytes=16 << 20, scratch_bytes=1 << 16)
EVERYTHING = dict.fromkeys(("tree", "pages", "runs", "scratch", "snapshot"), 1 << 30)


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(Config.load(workers=1)) as made:
        yield made


@pytest.fixture(scope="module")
def exported(engine, tmp_path_factory):
    """A sandbox as it is written by an honest engine."""
    file = tmp_path_factory.mktemp("honest") / "sandbox"
    with engine.create_sandbox("honest", source=SOURCE, limits=LIMITS) as sandbox:
        sandbox.run("bump")
        engine.export_sandbox(sandbox, file)
    return file


@pytest.fixture(scope="module")
def image_file(engine, tmp_path_factory):
    return engine.export_image(engine.image_id, tmp_path_factory.mktemp("honest") / "image")


def healthy(engine):
    assert engine.list_sandboxes() == []
    with engine.create_sandbox(source=SOURCE) as sandbox:
        assert sandbox.run("bump").unwrap() == 1


@pytest.fixture
def retold(engine, exported, tmp_path):
    """Import the sandbox with some facts and sections replaced, under a head that is whole."""

    def retold(facts=None, sections=None, **options):
        honest = read_archive(exported, "sandbox", EVERYTHING)
        told = {**honest.facts, **(facts or {})}
        held = {
            name: data for name, data in {**honest.sections, **(sections or {})}.items() if data is not None
        }
        write_archive(tmp_path / "file", Archive("sandbox", told, held))
        try:
            return engine.import_sandbox(tmp_path / "file", **options)
        finally:
            (tmp_path / "file").unlink()

    return retold


def test_an_honest_file_is_taken(engine, retold):
    with retold() as sandbox:
        assert sandbox.run("bump").unwrap() == 2
    healthy(engine)


SESSION = {"memory_bytes", "state"}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"id": "a\nb"}, "printable"),
        ({"id": "x" * 201}, "printable"),
        ({"id": 5}, "must be a string"),
        ({"generation": -1}, "whole number from 0"),
        ({"parent_ids": ["p"] * 65}, "too little, or nonsense"),
        ({"parent_ids": "abc"}, "too little, or nonsense"),
        ({"limits": {"fuel": 0}}, "limits: fuel"),
        ({"limits": {"nonsense": 1}}, "too little, or nonsense"),
        ({"limits": []}, "too little, or nonsense"),
        ({"limits": {"memory_bytes": 1 << 60}}, "memory_bytes"),
        ({"session": 5}, "too little, or nonsense"),
        ({"session": {"memory_bytes": "x", "state": {}}}, "too little, or nonsense"),
        ({"session": {"memory_bytes": 1 << 40, "state": {}}}, "its limits allow"),
        ({"session": {"memory_bytes": 65_537, "state": {}}}, "its limits allow"),
    ],
)
def test_facts_that_cannot_be(engine, retold, facts, why):
    with pytest.raises(evocell.ProtocolError, match=why):
        retold(facts)
    healthy(engine)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"open_files": 1}, "files open"),
        ({"arena": 0xFFFF_0000}, "outside its memory"),
        ({"clock_ns": 1 << 64}, "out of range"),
        ({"rng": -1}, "out of range"),
        ({"extra": 1}, "other globals"),
        ({"rng": "zz"}, "not of the right form"),
    ],
)
def test_globals_that_no_guest_could_have(engine, retold, exported, change, why):
    session = read_archive(exported, "sandbox", EVERYTHING).facts["session"]
    with pytest.raises(evocell.ProtocolError, match=why):
        retold({"session": {**session, "state": {**session["state"], **change}}})
    healthy(engine)


WRITER = """
def fill(name, pages):
    with open('/tmp/' + name, 'wb') as out:
        for _ in range(pages): out.write(bytes(4096))
"""


@pytest.mark.parametrize(
    "told",
    [
        (0, 0),
        (1, 1),
        (1 << 15, 0),
        (0, 4),
        ((1 << 64) - 1, 0),
        (1 << 63, 0),
        ((1 << 64) - (1 << 20), (1 << 32) - 1),
    ],
)
def test_what_a_file_says_of_its_scratch_space_does_not_count(engine, tmp_path, told):
    """Sizes are those of what was unpacked: what was full is full, and what was free is free."""
    with engine.create_sandbox("writer", source=WRITER, limits=LIMITS) as sandbox:
        assert sandbox.run("fill", args=("x", 10)).ok  # 11 units of 4 KiB of 16
        engine.export_sandbox(sandbox, tmp_path / "honest")
    honest = read_archive(tmp_path / "honest", "sandbox", EVERYTHING)
    session = honest.facts["session"]
    state = {**session["state"], "scratch_used": told[0], "scratch_entries": told[1]}
    facts = {**honest.facts, "session": {**session, "state": state}}
    write_archive(tmp_path / "forged", evolve(honest, facts=facts))
    for pages, kind in ((4, "completed"), (5, "files")):
        with engine.import_sandbox(tmp_path / "forged", limits=LIMITS) as sandbox:
            assert sandbox.run("fill", args=("y", pages)).kind == kind
    for files, kind in ((2, "completed"), (1, None)):
        limits = LIMITS.evolve(scratch_files=files)
        with engine.import_sandbox(tmp_path / "forged", limits=limits) as sandbox:
            outcome = sandbox.run("fill", args=("y", 1))
            assert outcome.kind == (kind or "files")
    healthy(engine)


@pytest.mark.parametrize(
    ("entries", "limits", "why"),
    [
        ([["a", bytes(1 << 16)]], {}, "take more than the 65,536 bytes"),  # its own entry counts
        ([["a", bytes(61_441)]], {}, "take more than the 65,536 bytes"),
        ([[f"d{n}", None] for n in range(17)], {}, "take more than the 65,536 bytes"),
        ([[f"f{n}", b"x"] for n in range(9)], {}, "take more than the 65,536 bytes"),
        ([["a", bytes(5000)]], {"scratch_file_bytes": 4999}, "has 5,000 bytes, and its limits allow 4,999"),
        ([["a", b""]], {"scratch_bytes": 0}, "its limits allow none"),
        ([["a", None], ["b", None]], {"scratch_files": 1}, "more than the 1 that its limits allow"),
        ([[1 << 70_000, b""]], {}, "something else than bytes"),
        ([["a", {"b": 1}]], {}, "something else than bytes"),
    ],
)
def test_scratch_files_are_held_to_the_importers_limits(engine, retold, entries, limits, why):
    with pytest.raises(evocell.ProtocolError, match=why):
        retold(sections={"scratch": encode(entries)}, limits=LIMITS.evolve(**limits))
    healthy(engine)


def test_scratch_files_may_fill_what_the_limits_allow(engine, retold):
    for entries in ([["a", bytes(61_440)]], [[f"d{n}", None] for n in range(16)]):
        with retold(sections={"scratch": encode(entries)}, limits=LIMITS) as sandbox:
            assert sandbox.run("bump").ok


def test_an_image_carries_no_use_of_a_scratch_space(engine, image_file, tmp_path):
    """Its forks begin with an empty one; what the file says would be quota lost, or won."""
    from evocell_runtime.snapshot import Snapshot

    honest = read_archive(image_file, "image", EVERYTHING)
    for used in (1 << 30, (1 << 64) - (1 << 20)):
        state = {**honest.facts["state"], "scratch_used": used, "scratch_entries": 7}
        told = Snapshot(honest.facts["pages"], honest.facts["offset"], honest.sections["snapshot"], state)
        facts = {**honest.facts, "state": state, "snapshot_sha256": told.sha256}
        write_archive(tmp_path / f"{used}", evolve(honest, facts=facts))
        image = engine.import_image(tmp_path / f"{used}")
        try:
            with engine.create_sandbox(source=WRITER, limits=LIMITS, image=image.id) as sandbox:
                assert sandbox.run("fill", args=("y", 15)).ok
            with engine.create_sandbox(source=WRITER, limits=LIMITS, image=image.id) as sandbox:
                assert sandbox.run("fill", args=("y", 16)).kind == "files"
        finally:
            ImageCache().remove(image.id)


def runs(*pairs):
    return struct.pack(f"<{2 * len(pairs)}Q", *(number for pair in pairs for number in pair))


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"runs": runs((0, 4096), (0, 4096))}, "over each other"),
        ({"runs": runs((4096, 4096), (0, 4096))}, "over each other"),
        ({"runs": runs((1, 4096))}, "over each other"),
        ({"runs": runs((1 << 40, 4096))}, "outside its memory"),
        ({"runs": runs((0, 1 << 63))}, "outside its memory"),
        ({"runs": runs((0, 0))}, "over each other"),
        ({"runs": b"abc"}, "not of the right form"),
        ({"runs": runs((0, 8192)), "pages": zlib.compress(bytes(4096))}, "more or fewer"),
        ({"runs": runs((0, 4096)), "pages": zlib.compress(bytes(100 << 20))}, "more or fewer"),
        ({"runs": runs((0, 4096)), "pages": zlib.compress(bytes(4096)) + b"more"}, "more or fewer"),
        ({"runs": runs((0, 4096)), "pages": b"no zlib at all"}, "cannot be unpacked"),
        ({"pages": None}, "too little, or nonsense"),
        ({"scratch": b"\xff\xff"}, "scratch files cannot be had"),
        ({"scratch": encode([["../out", b"x"]])}, r"climbs out of the tree with \.\."),
        ({"scratch": encode([["/etc/x", b"x"]])}, "is absolute"),
        ({"scratch": encode([["a", b"x"], ["a", b"y"]])}, "scratch files cannot be had"),
        ({"scratch": encode([["a", bytes(1 << 17)]])}, "take more than"),
        ({"scratch": encode([["a", 5]])}, "something else than bytes"),
        ({"scratch": encode([["a/b", b"x"]])}, "scratch files cannot be had"),
        ({"scratch": encode([["a/b", None]])}, "scratch files cannot be had"),
        ({"scratch": encode([["/".join("a" * 17), b"x"]])}, "deeper than the 16 names"),
        ({"scratch": encode([[f"f{n}", b""] for n in range(1_001)])}, "more than the 1,000"),
        ({"scratch": encode([[f"d{n}", None] for n in range(20_000)])}, "scratch files cannot be had"),
        ({"tree": encode([["../program.py", b"x"]])}, r"climbs out of the tree with \.\."),
        ({"tree": encode([["a.py", b"x"], ["A.py", b"x"]])}, "differ only in case"),
        ({"tree": encode({"a": b"x"})}, "no list of files"),
        ({"tree": encode([["program.py", b"def f(:"]])}, "refused here"),
        ({"tree": None}, "refused here"),
    ],
)
def test_sections_that_cannot_be(engine, retold, sections, why):
    with pytest.raises(evocell.ProtocolError, match=why):
        retold(sections=sections)
    healthy(engine)


def test_an_image_that_is_not_here_is_not_taken_for_another(engine, retold):
    with pytest.raises(evocell.ConfigurationError, match="which is not here"):
        retold({"image_id": "0" * 32, "snapshot_sha256": "0" * 64})
    with pytest.raises(evocell.ConfigurationError, match="which is not here"):
        retold({"snapshot_sha256": "0" * 64})
    healthy(engine)


def test_limits_of_ones_own_go_before_those_of_the_file(engine, retold):
    small = Limits(fuel=1000)
    with retold({"limits": {"fuel": 1 << 60}, "session": None}, limits=small) as sandbox:
        assert sandbox.run("bump").kind == "fuel"


def test_memory_that_was_tampered_with_harms_its_guest_alone(engine, retold, exported):
    honest = read_archive(exported, "sandbox", EVERYTHING)
    size = len(zlib.decompress(honest.sections["pages"]))
    noise = random.Random(5)
    for _ in range(5):
        pages = zlib.compress(noise.randbytes(size), 1)
        with retold(sections={"pages": pages}) as sandbox:
            outcome = sandbox.run("bump")
            assert not outcome.ok
            assert sandbox.run("bump").unwrap() == 1  # from a fresh fork
    healthy(engine)


@pytest.mark.parametrize("which", ["exported", "image_file"])
def test_every_damaged_or_shortened_file_is_refused(engine, request, which, tmp_path):
    whole = request.getfixturevalue(which).read_bytes()
    take = engine.import_sandbox if which == "exported" else engine.import_image
    file, noise = tmp_path / "file", random.Random(3)
    n_tries = 60 if which == "exported" else 12
    for turn in range(n_tries):
        at = turn if turn < n_tries // 2 else noise.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << noise.randrange(8)
        for data in (bytes(damaged), whole[:at]):
            file.write_bytes(data)
            with pytest.raises((evocell.ProtocolError, evocell.ImageError)):
                take(file)
    file.write_bytes(whole + b"!")
    with pytest.raises((evocell.ProtocolError, evocell.ImageError), match="something follows its end"):
        take(file)
    healthy(engine)


def test_what_is_no_file_is_refused_without_waiting(engine, tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nowhere", "/dev/zero"):
        with pytest.raises(evocell.ConfigurationError):
            engine.import_sandbox(path)
        with pytest.raises(evocell.ImageError):
            engine.import_image(path)


@pytest.fixture
def retold_image(engine, image_file, tmp_path):
    def retold(facts=None, sections=None):
        honest = read_archive(image_file, "image", EVERYTHING)
        parcel = Archive("image", {**honest.facts, **(facts or {})}, {**honest.sections, **(sections or {})})
        write_archive(tmp_path / "file", parcel)
        try:
            return engine.import_image(tmp_path / "file")
        finally:
            (tmp_path / "file").unlink()

    return retold


@pytest.mark.parametrize(
    ("facts", "sections", "why"),
    [
        ({"abi": "0" * 32}, {}, "another interpreter"),
        ({"root": {"root/x": "0" * 64}}, {}, "no image here has the files"),
        ({"root": {}}, {}, "which files"),
        ({"root": {1 << 70_000: "x"}}, {}, "which files"),
        ({"root": {"root/x": 1 << 70_000}}, {}, "which files"),
        ({"root": {"root/x": "0" * 64}, "layers": [1 << 70_000]}, {}, "no image here has the files"),
        ({"state": {1 << 70_000: 1}}, {}, "does not say its state"),
        ({"root": {f"root/{n}": "" for n in range(1001)}}, {}, "which files"),
        ({"parent": "../../x"}, {}, "what it was made from"),
        ({"version": "x"}, {}, "its code is not what it says"),
        ({"pages": 1 << 40}, {}, "larger or smaller"),
        ({"pages": -1}, {}, "larger or smaller"),
        ({"pages": True}, {}, "does not say its pages"),
        ({"offset": 1}, {}, "begin at a page"),
        ({"offset": 1 << 40}, {}, "larger or smaller"),
        ({"state": {}}, {}, "other globals"),
        ({"state": {"clock_ns": "1) (func"}}, {}, "does not say its clock_ns"),
        ({"snapshot_sha256": "0" * 64}, {}, "its snapshot is not what it says"),
        ({}, {"snapshot": b"x"}, "its snapshot is not what it says"),
        ({}, {"membrane.cwasm": b"\x7fELF native code"}, "describes a section wrongly"),
    ],
)
def test_images_that_cannot_be(engine, retold_image, facts, sections, why):
    before = {image.id for image in engine.list_images()}
    with pytest.raises(evocell.ImageError, match=why):
        retold_image(facts, sections)
    assert {image.id for image in engine.list_images()} == before
    healthy(engine)


def test_a_snapshot_of_noise_does_not_become_an_image(engine, image_file, tmp_path):
    """All of it is said truly; it only does not answer when it is tried."""
    from evocell_runtime.snapshot import Snapshot

    honest = read_archive(image_file, "image", EVERYTHING)
    data = random.Random(1).randbytes(1 << 20)
    state = {name: int(value) for name, value in honest.facts["state"].items()}
    lie = Snapshot(pages=honest.facts["pages"], offset=honest.facts["offset"], data=data, state=state)
    facts = {**honest.facts, "snapshot_sha256": lie.sha256}
    write_archive(tmp_path / "file", evolve(honest, facts=facts, sections={"snapshot": data}))
    before = len(engine.list_images())
    with pytest.raises(evocell.ImageError):
        engine.import_image(tmp_path / "file", "noise")
    assert (len(engine.list_images()), ImageCache().id_of("noise")) == (before, None)
    healthy(engine)
