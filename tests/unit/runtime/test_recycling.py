"""A guest that gets the body of another finds nothing of it."""

import gc
from pathlib import Path

import pytest

from evocell_runtime import hot_pages, recycling
from evocell_runtime.cache import ImageCache
from evocell_runtime.calls import CallLimits
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec

FUEL = CallLimits(fuel=10**10, scratch_bytes=1 << 20)
MESS = """
import random, time, sys, os, json
kept = [bytearray(b"secret" * 100) for _ in range(500)]
time.sleep(1000); random.seed(7); sys.setrecursionlimit(77)
os.environ["SECRET"] = "1"; json.secret = kept; sys.modules["numpy"] = None
opened = [open("/usr/local/lib/python315.zip", "rb") for _ in range(5)]
print("secret", flush=True)
"""
TELL = """
import json, os, random, sys, time, numpy
print(time.time(), random.random(), sys.getrecursionlimit(), sorted(os.environ), hasattr(json, "secret"))
print(numpy.arange(5).sum(), id(object()), open("/usr/local/lib/python315.zip", "rb").fileno())
"""


@pytest.fixture
def own(image) -> Image:
    """An image without spare bodies of other tests."""
    opened = open_image(ImageSpec(), ImageCache())
    yield opened
    opened.close()


def live(image, run, program, **how):
    """Run a program in a fork and close it."""
    instance = image.fork(**how)
    result = run(instance, program, scratch_bytes=1 << 20)
    instance.close()
    return result


def whole(instance):
    return instance.memory.read(0, instance.memory.size_bytes)


def test_a_wiped_body_is_the_image_again_byte_for_byte(own, run):
    fresh = own.fork()
    clean, state = whole(fresh), fresh.state()
    told = run(fresh, TELL)
    assert own.reference().read(0, own.memory_bytes) == clean

    assert live(own, run, MESS).stdout == b"secret\n"
    again = own.fork()

    assert own.spares.reused == 1
    assert whole(again) == clean
    assert again.state() == state
    second = run(again, TELL)
    assert (second.stdout, second.fuel_used, second.stderr) == (told.stdout, told.fuel_used, told.stderr)
    fresh.close()
    again.close()


def test_many_guests_one_after_the_other_use_the_same_fuel(own, run):
    first = live(own, run, TELL)
    for _ in range(5):
        live(own, run, MESS)
        told = live(own, run, TELL)
        assert (told.stdout, told.fuel_used) == (first.stdout, first.fuel_used)
    assert own.spares.reused == 10


SMALL = "x = 1"
WIDE = "kept = [bytearray(b'secret' * 100) for _ in range(500)]"


def scans(monkeypatch):
    """Count how often the kernel is asked for the written pages."""
    asked = []

    def ask(*args, **options):
        asked.append(args)
        return hot_pages.written_ranges(*args, **options)

    monkeypatch.setattr(recycling, "written_ranges", ask)
    return asked


@pytest.mark.parametrize("other", ["", "import threading", "another guest"])
def test_pages_are_wiped_that_only_the_latest_guest_of_a_body_wrote_to(own, run, monkeypatch, other):
    asked, n_pages, fresh = scans(monkeypatch), [], own.fork()
    clean, second = whole(fresh), own.fork()
    for program in (SMALL, SMALL, WIDE, SMALL, WIDE, "y = bytearray(600_000)", SMALL):
        live(own, run, program)
        if other == "another guest":
            run(second, program)
        elif other:
            run(fresh, other)
            fresh.close()
            fresh = own.fork()
        again = own.fork()
        assert whole(again) == clean
        n_pages.append(sum(size for *_, size in again._body.written.copies))
        again.close()

    assert n_pages == sorted(n_pages)
    assert n_pages[2] > n_pages[1]
    assert asked
    fresh.close()
    second.close()


def test_the_kernel_is_asked_again_only_where_there_was_a_page_fault(own, run, monkeypatch):
    live(own, run, SMALL)
    asked, faults = scans(monkeypatch), [7]
    monkeypatch.setattr(recycling, "page_faults", lambda: faults[0])

    live(own, run, SMALL)
    assert len(asked) == 1
    for _ in range(3):
        live(own, run, SMALL)
    assert len(asked) == 1

    faults[0] = 8
    live(own, run, SMALL)
    assert len(asked) == 2


@pytest.mark.parametrize("missing", ["faults_tell", "small_pages_only"])
def test_where_faults_do_not_tell_the_kernel_is_always_asked(own, run, monkeypatch, missing):
    asked = scans(monkeypatch)
    monkeypatch.setattr(recycling, "page_faults", lambda: 7)
    monkeypatch.setattr(recycling, missing, lambda *_: False)

    for _ in range(3):
        live(own, run, SMALL)

    assert len(asked) == 3


def test_each_first_write_to_a_page_is_counted_as_a_fault(own, run):
    """What the wiping relies on, for a guest's memory and on this kernel."""
    if not hot_pages.faults_tell():
        pytest.skip("the kernel does not count page faults")
    instance = own.fork()
    run(instance, SMALL)
    address, size = instance.memory.address, instance.memory.size_bytes
    assert hot_pages.small_pages_only(address, size)
    written = pages_of(hot_pages.written_pages(address, size))
    untouched = [page for page in range(0, size, 4096) if page not in written][::97]

    for page in untouched:
        byte = instance.memory.read(page, 1)
        before = hot_pages.page_faults()
        instance.memory.write(page, byte)
        assert hot_pages.page_faults() > before
        written.add(page)
        assert pages_of(hot_pages.written_pages(address, size)) == written
    instance.close()


def test_the_directories_and_the_limit_are_those_of_the_new_guest(own, run, tmp_path):
    one, two, scratch = tmp_path / "one", tmp_path / "two", tmp_path / "scratch"
    for place in (one, two, scratch):
        place.mkdir()
        (place / f"{place.name}.txt").write_text(place.name)
    listing = "import os; print(os.listdir('/app'), os.listdir('/tmp'))"
    write = "open('/tmp/x', 'w').write('x')"

    assert live(own, run, listing, app=one, scratch=scratch).stdout == b"['one.txt'] ['scratch.txt']\n"
    assert live(own, run, listing, app=two).stdout == b"['two.txt'] []\n"
    assert live(own, run, write, app=two, scratch=scratch).status == 0
    assert own.spares.reused == 2
    assert live(own, run, write, app=two).status == 1
    grown = "x = bytearray(40 << 20)"
    assert b"MemoryError" in live(own, run, grown, growth_bytes=8 << 20).stderr
    assert live(own, run, grown).status == 0


def test_descriptors_are_closed_when_the_guest_ends(own, run):
    live(own, run, "")
    gc.collect()  # of what other tests left, nothing is to be closed in between
    before = len(list(Path("/proc/self/fd").iterdir()))

    live(own, run, MESS)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("program", "fuel"),
    [
        ("x = bytearray(60 << 20)", 10**10),  # it grew
        ("while True: pass", 10**8),
        ("import os; os._exit(0)", 10**10),
        ("def f(): return f()\nf()\nx = list(range(200_000))", 10**10),  # much was written to
    ],
)
def test_a_body_that_cannot_be_wiped_is_freed(own, run, program, fuel):
    instance = own.fork()
    run(instance, program, fuel=fuel)
    instance.close()

    assert own.spares.take(ran_code=False) is None


def test_a_body_whose_call_was_killed_is_freed(own):
    instance = own.fork()
    instance.start(b"while True: pass", b"", FUEL).poll()
    instance.close()

    assert own.spares.take(ran_code=False) is None


def test_no_more_bodies_are_kept_than_is_said(own, run):
    instances = [own.fork() for _ in range(recycling.MOST_SPARE + 3)]
    for instance in instances:
        run(instance, "x = 1")
        instance.close()

    taken = 0
    while (body := own.spares.take(ran_code=False)) is not None:
        body.close()
        taken += 1
    assert taken == recycling.MOST_SPARE


def test_a_compilation_is_never_given_the_body_a_variant_was_in(own, run, tmp_path):
    live(own, run, "x = 1", app=tmp_path)
    assert own.spares.take(ran_code=False) is None
    live(own, run, "x = 1")
    assert own.spares.reused == 0
    live(own, run, "x = 1", app=tmp_path)
    assert own.spares.reused == 1


def test_where_the_kernel_does_not_tell_nothing_is_kept(own, run, monkeypatch):
    monkeypatch.setattr(recycling, "written_ranges", lambda *_, **__: [])

    live(own, run, "x = 1")

    assert own.spares.take(ran_code=False) is None


def test_both_ways_of_asking_the_kernel_give_the_same_pages(guest, run, monkeypatch):
    run(guest, "x = bytearray(5 << 20)")
    memory = guest.memory
    scanned = hot_pages.written_pages(memory.address, memory.size_bytes)

    monkeypatch.setattr(hot_pages, "_scan", lambda *_: None)
    read = hot_pages.written_pages(memory.address, memory.size_bytes)

    assert scanned
    assert pages_of(scanned) <= pages_of(read)
    for page in pages_of(read) - pages_of(scanned):  # the kernel's own page of zeros
        assert memory.read(page, 4096) == bytes(4096)


def pages_of(runs):
    return {page for run in runs for page in range(run.offset, run.offset + run.size, 4096)}


def test_using_a_closed_guest_is_an_error_also_when_another_has_its_body(own, run):
    instance = own.fork()
    run(instance, "x = 1")
    instance.close()
    other = own.fork()
    instance.close()

    with pytest.raises(RuntimeError, match="closed"):
        _ = instance.memory
    with pytest.raises(RuntimeError, match="closed"):
        instance.start(b"", b"", FUEL)
    assert run(other, "print('fine')").stdout == b"fine\n"
    other.close()
