import os
import shutil
import time

import pytest
import wasmtime
from attrs import evolve

from evocell_runtime import membrane
from evocell_runtime.body import Body
from evocell_runtime.boot import BOOT_STATE, load_agent, membrane_pre, start_interpreter
from evocell_runtime.cache import ImageCache
from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import ImageError
from evocell_runtime.instance import Instance
from evocell_runtime.snapshot import DEAD_STACK_BYTES, Snapshot, freeze, membrane_module
from evocell_runtime.warm import DEFAULT_WARM

FUEL = CallLimits(fuel=10**9)
EVERYTHING_IN_ONE = "import json, random\nstate = {'random': random.random(), 'list': [1, 2, 3]}\n"
TELL = "print(sorted(state), state['list'], random.random(), hash('x'), id(state) % 4096)\n"


def copy_in_another_order(source, target):
    """Copy a tree, its last entries first, with files of no use made and removed in between, an hour older."""
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir(), reverse=True):
        (target / "gone").touch()
        if entry.is_dir():
            copy_in_another_order(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)
            os.utime(target / entry.name, (time.time() - 3600,) * 2)
        (target / "gone").unlink()


def boot(image, parts, folder, warm=DEFAULT_WARM):
    folder.mkdir(exist_ok=True)
    copy_in_another_order(ImageCache().image_dir(image.image_id) / "root", folder / "root")
    (folder / "empty").mkdir()
    instance = start_interpreter(image._engine, image._code, parts, folder / "root", folder / "empty")
    load_agent(instance, warm, ())
    return instance


def test_two_boots_from_copies_give_the_same_module_byte_for_byte(image, parts, tmp_path):
    made = []
    for name in ("one", "two"):
        instance = boot(image, parts, tmp_path / name)
        snapshot = freeze(instance)
        instance.close()
        made.append((snapshot.sha256, membrane_module(parts.imports, snapshot)))

    assert made[0] == made[1]
    assert made[0][0] == image.manifest.snapshot_sha256


@pytest.fixture
def fork_of(image, tmp_path, parts):
    """Fork a snapshot as an image of its own would be."""
    instances = []
    root = str(ImageCache().image_dir(image.image_id) / "root")

    def fork(snapshot):
        module = wasmtime.Module(image._engine, membrane_module(parts.imports, snapshot))
        pre = membrane_pre(image._engine, module)
        directories = (root, str(tmp_path), str(tmp_path), str(tmp_path))
        body = Body(image._engine, pre, image._code)
        body.furnish(directories, memory_limit_bytes=256 << 20, scratch=False)
        instances.append(Instance(body))
        return instances[-1]

    yield fork
    for instance in instances:
        instance.close()


def test_forks_of_a_running_guest_go_on_where_it_was_and_are_apart(guest, run, fork_of):
    assert run(guest, EVERYTHING_IN_ONE).status == 0
    snapshot = freeze(guest)
    assert freeze(guest) == snapshot
    one, two = fork_of(snapshot), fork_of(snapshot)

    first = run(one, TELL)
    run(one, "state.clear()")

    assert first.stdout.startswith(b"['list', 'random'] [1, 2, 3] 0.")
    for other in (two, guest):
        told = run(other, TELL)
        assert (told.stdout, told.fuel_used) == (first.stdout, first.fuel_used)


def test_the_clock_the_generator_and_the_counters_are_part_of_it(guest, run, fork_of):
    run(guest, "import time; time.sleep(1000)")
    snapshot = freeze(guest)

    assert snapshot.state["clock_ns"] > 1000 * 10**9
    assert fork_of(snapshot).state() == snapshot.state
    assert set(snapshot.state) == set(membrane.GLOBALS)
    assert evolve(snapshot, state={**snapshot.state, "clock_ns": 0}).sha256 != snapshot.sha256


def test_what_lies_dead_in_the_stack_and_the_arena_is_not_kept(guest, run):
    captured = guest.state()["arena"] + membrane.AT_STDOUT
    assert run(guest, "print('left over')").stdout == guest.memory.read(captured, 10)
    guest.memory.write(1 << 20, b"left on the stack")

    snapshot = freeze(guest)

    assert snapshot.offset >= DEAD_STACK_BYTES
    assert snapshot.data[captured - snapshot.offset :][:10] == bytes(10)
    assert run(guest, "print('still here')").stdout == b"still here\n"


def test_a_guest_with_files_open_is_not_frozen_until_they_are_closed(guest, run):
    run(guest, "opened = [open('/usr/local/lib/python315.zip', 'rb') for _ in range(2)]")

    with pytest.raises(ImageError, match="the guest has 2 files open; close them before the freeze"):
        freeze(guest)
    run(guest, "for one in opened: one.close()")
    freeze(guest)


@pytest.mark.parametrize("program", ["while True: pass", "import os; os._exit(3)"])
def test_a_guest_whose_call_was_killed_is_not_frozen(guest, run, program):
    assert not run(guest, program, fuel=20_000_000).returned

    with pytest.raises(ImageError, match="killed or trapped"):
        freeze(guest)


def test_a_guest_with_a_call_in_flight_is_not_frozen(guest):
    call = guest.start(b"while True: pass", b"", FUEL)
    call.poll()

    with pytest.raises(ImageError, match="a call in flight"):
        freeze(guest)
    call.abandon()
    with pytest.raises(ImageError, match="killed"):
        freeze(guest)


def test_a_snapshot_of_nothing_is_a_module_without_data(parts, image):
    empty = Snapshot(pages=2, offset=0, data=b"", state=BOOT_STATE)

    wasmtime.Module(image._engine, membrane_module(parts.imports, empty))


def test_the_segment_begins_on_a_page_and_holds_the_memory(parts, image, fork_of):
    data = b"\1" * 5000 + bytes(200_000) + b"\2" * 10
    snapshot = Snapshot(pages=1000, offset=8192, data=data, state=BOOT_STATE)

    memory = fork_of(snapshot).memory

    assert memory.size_bytes == 1000 << 16
    assert memory.read(8192, len(data)) == data
    assert memory.read(0, 8192) == bytes(8192)
