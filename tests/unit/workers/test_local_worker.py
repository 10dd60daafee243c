import threading

import pytest
import trio
import trio.testing

from evocell.code import compiler
from evocell.errors import CapacityError, ConfigurationError, EngineClosed
from evocell.models.outcome import Completed, GuestCrashed, LimitExceeded, Rejected
from evocell.workers import worker
from evocell.workers.outcomes import classify

pytestmark = pytest.mark.trio

FOREVER = {"fuel": 10**15, "timeout_s": 1000.0}


async def begun(worker, jobs=1):
    """Wait until so many calls are being run."""
    with trio.fail_after(30):
        while sum(job._call is not None and job._call.slices > 0 for job in worker.host._running) < jobs:  # noqa: ASYNC110 - a slice tells nobody
            await trio.sleep(0.001)


async def test_a_throw_away_call_gives_its_value_and_keeps_nothing(call, descriptors):
    before = descriptors()
    for _ in range(2):
        report = await call.report("add", 5)
        assert report.outcome.unwrap() == 5
        assert not report.session_alive

    assert descriptors() == before


async def test_equal_calls_give_equal_outcomes(call):
    one, two = await call("echo", {"a": [1.5]}, seed=3), await call("echo", {"a": [1.5]}, seed=3)

    assert one == two
    assert one.fuel_used == two.fuel_used > 0


async def test_what_does_not_compile_is_rejected(call):
    found = await call.compile("def f(:\n")

    assert isinstance(found, Rejected)
    assert (found.kind, found.path, found.line) == ("syntax", "program.py", 1)


async def test_a_compilation_that_takes_too_long_says_what_it_took(call, monkeypatch):
    """The compiler compares the keywords of a call with one another."""
    monkeypatch.setattr(compiler, "_LEAST_FUEL", 1_000_000_000)
    monkeypatch.setattr(compiler, "_MOST_FUEL_PER_BYTE", 1000)
    source = "f(" + ", ".join(f"keyword_{number}=1" for number in range(5000)) + ")"

    found = await call.compile(source)

    assert isinstance(found, Rejected)
    assert found.kind == "compile"
    assert "stopped at the fuel limit" in found.message
    assert found.fuel_used > 1_000_000_000
    assert found.wall_s > 0


@pytest.mark.parametrize(("n_bytes", "in_thread"), [(100, False), (200_000, True)])
async def test_a_long_answer_is_read_beside_the_loop(call, monkeypatch, n_bytes, in_thread):
    threads = []

    def seen(*args, **kwargs):
        threads.append(threading.get_ident())
        return classify(*args, **kwargs)

    monkeypatch.setattr(worker, "classify", seen)

    report = await call.report("echo", b"x" * n_bytes)

    assert report.outcome.unwrap() == b"x" * n_bytes
    assert n_bytes < report.answer_bytes < n_bytes + 100
    assert [thread != threading.get_ident() for thread in threads] == [in_thread]


# ---------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("session", [None, "s"])
async def test_a_cancelled_call_leaves_no_fork(call, descriptors, session):
    before = descriptors()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call("endless", session=session, **FOREVER))
        await begun(call.worker)
        nursery.cancel_scope.cancel()

    assert descriptors() == before
    assert call.worker.host._running == set()
    assert (await call("add", 2, session=session)).unwrap() == 2


async def test_a_cancelled_call_that_waited_for_its_turn_leaves_the_kept_fork_closed(call, descriptors):
    before = descriptors()
    await call("add", session="s")
    kept = descriptors()
    assert kept > before
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: call("endless", **FOREVER))
        await begun(call.worker)
        busy = descriptors()
        call.worker.host._driver._most = 0  # nothing else begins
        async with trio.open_nursery() as inner:
            inner.start_soon(lambda: call("add", session="s"))
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        assert descriptors() == busy - (kept - before)
        nursery.cancel_scope.cancel()

    assert descriptors() == before


async def test_a_cancelled_session_starts_afresh(call):
    assert (await call("add", 7, session="s")).unwrap() == 7
    with trio.move_on_after(0.05) as scope:
        await call("endless", session="s", **FOREVER)
    assert scope.cancelled_caught

    assert (await call("add", 1, session="s")).unwrap() == 1


# ---------------------------------------------------------------------- sessions


async def test_a_session_keeps_its_state_and_others_have_their_own(call):
    reports = [await call.report("add", session=name) for name in ("a", "b", "a", "a")]

    assert [r.outcome.unwrap() for r in reports] == [1, 1, 2, 3]
    assert all(r.session_alive for r in reports)
    assert (await call("add")).unwrap() == 1


async def test_a_session_survives_an_exception_and_a_rejected_entry(call):
    await call("add", session="a")
    raised, missing = await call.report("add", "x", session="a"), await call.report("no_such", session="a")

    assert (raised.outcome.kind, raised.session_alive) == ("raised", True)
    assert (missing.outcome.kind, missing.session_alive) == ("load", True)
    assert (await call("add", session="a")).unwrap() == 2


@pytest.mark.parametrize(
    ("entry", "limits", "kind"),
    [
        ("endless", {"fuel": 20_000_000}, "fuel"),
        ("endless", {"fuel": 10**15, "timeout_s": 0.02}, "timeout"),
        ("leave", {}, "crashed"),
    ],
)
async def test_a_kill_ends_the_session_and_the_next_call_starts_afresh(
    call, descriptors, entry, limits, kind
):
    before = descriptors()
    await call("add", 9, session="a")

    report = await call.report(entry, session="a", **limits)

    assert isinstance(report.outcome, LimitExceeded | GuestCrashed)
    assert (report.outcome.kind, report.session_alive) == (kind, False)
    assert descriptors() == before
    assert (await call("add", session="a")).unwrap() == 1


async def test_a_reload_keeps_the_state_that_the_new_code_keeps(call):
    other = await call.compile("count = globals().get('count', 0)\ndef add(n=1): return ('new', count)\n")
    await call("add", 4, session="a")

    assert (await call("add", session="a", code=other)).unwrap() == 5  # loaded already, so not loaded again
    assert (await call("add", session="a", code=other, reload=True)).unwrap() == ("new", 5)


async def test_ending_a_session_drops_its_state_and_may_be_repeated(call, descriptors):
    before = descriptors()
    await call("add", session="a")
    assert descriptors() > before

    await call.worker.host.end_session("a")
    await call.worker.host.end_session("a")
    await call.worker.host.end_session("never was")

    assert descriptors() == before
    assert (await call("add", session="a")).unwrap() == 1


async def test_calls_on_one_session_come_one_after_the_other(open_caller):
    values = []

    async with open_caller(threads=2) as call:

        async def add():
            values.append((await call("add", session="a")).unwrap())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(add)

    assert sorted(values) == list(range(1, 11))


async def test_calls_and_ends_of_one_session_at_once_leave_one_fork_or_none(open_caller, descriptors):
    async with open_caller(threads=2) as call:
        before = descriptors()

        async def use(n):
            assert isinstance(await call("add", session="a"), Completed)
            if n % 2:
                await call.worker.host.end_session("a")

        async with trio.open_nursery() as nursery:
            for n in range(12):
                nursery.start_soon(use, n)
        await call.worker.host.end_session("a")

        assert descriptors() == before
        assert call.worker.host._sessions == {}


async def test_an_old_end_does_not_end_a_later_session_of_the_same_name(call):
    sessions = call.worker.host._sessions
    await call("add", 5, session="a")
    old = sessions["a"]
    ends, calls = call.worker.host.end_session, lambda name: call("add", session=name)
    async with trio.open_nursery() as nursery, old.lock:
        for waiting in (ends, calls, ends):
            nursery.start_soon(waiting, "a")
            await trio.testing.wait_all_tasks_blocked()

    assert sessions["a"] is not old
    assert (await call("add", session="a")).unwrap() == 2


async def test_scratch_space_goes_with_its_session(call, scratch_left):
    assert (await call("scratch", scratch_bytes=1 << 20)).unwrap() == ["file"]
    assert scratch_left() == 0
    await call("scratch", scratch_bytes=1 << 20, session="a")
    assert scratch_left() == 1
    await call.worker.host.end_session("a")
    assert scratch_left() == 0


# ---------------------------------------------------------------------- refusals and the end


async def test_arguments_over_the_limit_are_refused_before_a_fork_is_made(call):
    with pytest.raises(ConfigurationError, match=r"raise Limits.payload_bytes or pass less"):
        await call("echo", "x" * 1000, payload_bytes=500)


async def test_arguments_the_guest_has_no_room_for_are_a_memory_limit(call):
    found = await call("echo", bytes(8 << 20), memory_bytes=1 << 20)

    assert isinstance(found, LimitExceeded)
    assert found.kind == "memory"


async def test_no_room_for_a_fork_is_an_exception(call, monkeypatch):
    from evocell_runtime.errors import ImageError

    def refuse(**_):
        raise ImageError("the image cannot be forked: no memory")

    monkeypatch.setattr(call.worker.host._images.own, "fork", refuse)

    with pytest.raises(CapacityError, match="there is no room for another sandbox"):
        await call("add")


async def test_a_closed_worker_refuses_and_has_let_go_of_everything(open_caller, descriptors):
    async with open_caller() as call:
        before = descriptors()
        await call("add", session="a")
        await call("add", session="b")
        await call.worker.aclose()
        await call.worker.aclose()

        assert descriptors() == before
        for again in (
            lambda: call("add"),
            lambda: call("add", session="a"),
            lambda: call.compile("x = 1"),
            call.worker.info,
        ):
            with pytest.raises(EngineClosed, match="the engine is closed"):
                await again()
        await call.worker.host.end_session("a")


async def test_closing_ends_the_calls_that_run_and_those_that_wait(open_caller, descriptors):
    ended = []

    async with open_caller() as call:
        before = descriptors()
        await call("add", session="kept")

        async def run(**options):
            with pytest.raises(EngineClosed):
                await call("endless", **FOREVER, **options)
            ended.append(1)

        async with trio.open_nursery() as nursery:
            for options in ({}, {"session": "s"}, {"session": "s"}, {"session": "kept"}, *[{}] * 12):
                nursery.start_soon(lambda options=options: run(**options))
            await begun(call.worker)
            await call.worker.aclose()

        assert len(ended) == 16
        assert descriptors() == before
        assert call.worker.host._running == set()


async def test_the_worker_tells_of_its_interpreter(call):
    info = await call.worker.info()

    assert info["python"].startswith("3.15")
    assert "numpy" in info["packages"]
    assert call.worker.host.slots >= 1
    assert call.worker.image_id


async def test_the_worker_can_be_used_in_one_run_after_another(open_caller):
    for _ in range(2):
        async with open_caller() as call:
            assert (await call("add", 3)).unwrap() == 3


async def test_a_sleep_in_the_realtime_profile_is_cut_at_the_deadline_and_holds_no_thread(open_caller):
    async with open_caller(profile="realtime") as call:
        found = []

        async def sleep():
            found.append(await call("sleep", 3600, timeout_s=0.3))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await begun(call.worker)
            assert (await call("add", 2)).unwrap() == 2
            assert found == []

        assert (found[0].kind, found[0].deterministic) == ("timeout", False)
        assert (await call("sleep", 0.01)).unwrap() == "slept"
