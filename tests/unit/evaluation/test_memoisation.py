"""Remembered outcomes: when a call is spared, and that it never is where anything that matters differs."""

import json
import threading

import pytest
import trio
import trio.testing
from attrs import asdict, evolve, fields

import evocell
from evocell.evaluation import memo
from evocell.models.limits import Limits
from evocell.models.recorded import CallIdentity
from evocell.store.remembered import MOST_ENTRY_BYTES, Memory
from evocell.store.store import Store

SQUARE = "def f(x=3): return x * x"
CASES = [evocell.Case(args=(n,), expected=n * n) for n in range(3)]


def task(**changes):
    given = {"entry": "f", "cases": CASES, "memoise": True} | changes
    return evocell.Evaluation(given.pop("entry"), given.pop("cases"), **given)


def engine_of(workers, tmp_path=None, **settings):
    return evocell.Engine(evocell.Config(state_dir=tmp_path, **settings), open_worker=workers)


@pytest.fixture
def engine(fake_workers):
    with engine_of(fake_workers) as made:
        yield made


def test_the_same_call_is_made_once_and_counted(engine, fake_workers):
    first = engine.evaluate([SQUARE], task())[0]
    again = engine.evaluate([SQUARE, SQUARE], task())

    assert fake_workers.last.count["call"] == 3
    assert (first.n_memoised, [result.n_memoised for result in again]) == (0, [3, 3])
    assert [evolve(result, sandbox_id="") for result in again] == [evolve(first, sandbox_id="")] * 2
    info = engine.memo_info()
    assert (info.hits, info.misses, info.entries) == (6, 3, 3)


def test_it_is_off_unless_asked_for(fake_workers):
    with engine_of(fake_workers) as engine:
        for _ in range(2):
            assert engine.evaluate([SQUARE], task(memoise=None))[0].n_memoised == 0
        assert fake_workers.last.count["call"] == 6
        assert engine.memo_info() == evocell.MemoInfo()
    with engine_of(fake_workers, memoise=True) as engine:
        for expected in (0, 3):
            assert engine.evaluate([SQUARE], task(memoise=None))[0].n_memoised == expected
        assert engine.evaluate([SQUARE], task(memoise=False))[0].n_memoised == 0


def test_sandboxes_and_stages_remember_too(engine, fake_workers):
    sandbox = engine.create_sandbox(source=SQUARE)
    assert [engine.batch_evaluate([sandbox], task())[0].n_memoised for _ in range(2)] == [0, 3]
    assert engine.evaluate([SQUARE], task())[0].n_memoised == 3
    assert fake_workers.last.count["call"] == 3


def test_the_same_call_at_the_same_time_is_made_once(engine, fake_workers):
    results = engine.evaluate([SQUARE] * 20, task())

    assert fake_workers.last.count["call"] == 3
    assert sum(result.n_memoised for result in results) == 57


def test_scoring_is_done_every_time_and_gets_a_value_of_its_own(engine):
    seen = []

    def score(case, value):
        seen.append(list(value))
        value.append(99)
        return float(len(seen))

    list_task = task(cases=[evocell.Case(args=(1,))], score=score)
    source = "def f(x): return [x]"

    assert [engine.evaluate([source], list_task)[0].fitness_score for _ in range(3)] == [1.0, 2.0, 3.0]
    assert seen == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("source", "remembered"),
    [
        ("def f(x): raise ValueError('no')", True),
        ("def f(x): raise KeyboardInterrupt", True),
        ("def f(x): raise SystemExit", True),
        ("def f(x): return {'a': (1, 2), 'b': {3}, 'c': b'd', 'e': float('nan')}", True),
    ],
)
def test_failures_are_remembered_as_well(engine, fake_workers, source, remembered):
    one = task(cases=[evocell.Case(args=(1,))], score=lambda case, value: 1.0)
    outcomes = [engine.evaluate([source], one)[0].test_results[0].outcome for _ in range(2)]

    assert fake_workers.last.count["call"] == (1 if remembered else 2)
    assert outcomes[0].kind == outcomes[1].kind
    assert outcomes[0].fuel_used == outcomes[1].fuel_used


@pytest.mark.parametrize(
    "outcome",
    [
        evocell.LimitExceeded("timeout", limit=1.0, deterministic=False),
        evocell.WorkerLost("gone", deterministic=False),
        evocell.Completed(value=1, deterministic=False),
    ],
)
def test_what_the_machine_decided_is_never_remembered(engine, fake_workers, outcome, monkeypatch):
    async def call(job):
        fake_workers.last.count["call"] += 1
        await trio.lowlevel.checkpoint()
        return memo.CallReport(outcome=outcome)

    engine.evaluate([SQUARE], task(memoise=False))
    fake_workers.last.count.clear()
    monkeypatch.setattr(fake_workers.last, "call", call)
    for _ in range(3):
        assert engine.evaluate([SQUARE], task(cases=[evocell.Case(expected=1)]))[0].n_memoised == 0
    assert fake_workers.last.count["call"] == 3
    assert engine.memo_info().entries == 0


def test_calls_that_share_a_fork_are_never_remembered(engine, fake_workers):
    for _ in range(2):
        engine.evaluate([SQUARE], task(isolation="candidate"))
        sandbox = engine.create_sandbox(source=SQUARE)
        engine.run(sandbox, "f")
        engine.run(sandbox, "f", isolation="call")
    assert fake_workers.last.count["call"] == 10
    assert engine.memo_info().entries == 0


def test_the_realtime_profile_never_remembers(fake_workers):
    with engine_of(fake_workers, profile="realtime", memoise=True) as engine:
        for _ in range(2):
            assert engine.evaluate([SQUARE], task())[0].n_memoised == 0
        assert fake_workers.last.count["call"] == 6


DIFFERENT = {
    "version": ("def f(x=3): return x * x ", {}),
    "a file beside it": ({"program.py": SQUARE, "data.txt": "a"}, {}),
    "entry": ("def g(x=3): return x * x\nf = g", {"entry": "g"}),
    "arguments": (SQUARE, {"cases": [evocell.Case(args=(7,), expected=49)]}),
    "arguments by name": (SQUARE, {"cases": [evocell.Case(kwargs={"x": 0}, expected=0)]}),
    "type of an argument": (SQUARE, {"cases": [evocell.Case(args=(0.0,), expected=0)]}),
    "seed": (SQUARE, {"seed": 1}),
    "seed of a case": (SQUARE, {"cases": [evocell.Case(args=(0,), expected=0, seed=5)]}),
    "harness": (SQUARE, {"harness": {"driver.py": "x = 1"}}),
    **{
        f"limit {attribute.name}": (
            SQUARE,
            {
                "limits": evocell.Limits(
                    **{attribute.name: attribute.default - 1 if attribute.default else 64}
                )
            },
        )
        for attribute in fields(evocell.Limits)
    },
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_hit_is_impossible_where_it_differs(engine, fake_workers, what):
    source, changes = DIFFERENT[what]
    engine.evaluate([SQUARE], task())
    before = fake_workers.last.count["call"]

    result = engine.evaluate([source], task(**changes))[0]

    assert result.n_memoised == 0
    assert fake_workers.last.count["call"] == before + len(result.test_results)


def test_a_hit_is_impossible_with_another_image_or_policy(fake_workers, tmp_path):
    for settings, snapshot in (
        ({}, "one"),
        ({}, "another"),
        ({"security_profile": "low"}, "one"),
        ({"blocked_modules": ("os",)}, "one"),
        ({"profile": "portable"}, "one"),
    ):
        with engine_of(fake_workers, tmp_path, memoise=True, **settings) as engine:
            fake_workers.last.snapshot = snapshot
            assert engine.evaluate([SQUARE], task())[0].n_memoised == 0, (settings, snapshot)
    with engine_of(fake_workers, tmp_path, memoise=True) as engine:
        fake_workers.last.snapshot = "one"
        assert engine.evaluate([SQUARE], task())[0].n_memoised == 3


def test_each_sandbox_has_the_memory_of_its_profile(engine):
    strict = engine.create_sandbox(source=SQUARE, security_profile="high")
    lax = engine.create_sandbox(source=SQUARE, security_profile="low")
    engine.batch_evaluate([strict], task())

    assert engine.batch_evaluate([lax], task())[0].n_memoised == 0
    assert engine.batch_evaluate([strict], task())[0].n_memoised == 3


def test_every_field_of_the_identity_is_in_its_key():
    base = CallIdentity(
        image="i", image_id="n", version="v", code="c", entry="e", arguments="a", limits=evocell.Limits()
    )
    others = [base.key]
    for attribute in fields(CallIdentity):
        value = getattr(base, attribute.name)
        changed = (
            value.evolve(fuel=1)
            if attribute.name == "limits"
            else value + (1 if isinstance(value, int) else "x")
        )
        others.append(evolve(base, **{attribute.name: changed}).key)

    assert len(set(others)) == len(fields(CallIdentity)) + 1
    assert CallIdentity.from_json(base.to_json()) == base


@pytest.mark.parametrize("text", ["", "ab12", "?", '"', '"code": "?"', '"version": "?"', "\0", "é", "{}"])
def test_the_json_of_a_call_is_that_of_its_fields(text):
    """It is put together of parts that calls of a batch share."""
    names = [field.name for field in fields(CallIdentity) if field.type in (str, "str")]
    assert len(names) == 10
    for chosen in [{name} for name in names] + [set(names), {"code", "version"}, {"entry", "image"}]:
        given = {name: text if name in chosen else "ff00" for name in names}
        call = CallIdentity(**given, seed=1 << 70, limits=Limits(fuel=5))
        plain = {**asdict(call), "seed": str(1 << 70)}
        assert call.to_json() == json.dumps(plain, sort_keys=True)
        assert CallIdentity.from_json(call.to_json()) == call


def test_it_outlives_the_engine_with_a_state_dir(fake_workers, tmp_path):
    for expected in (0, 3):
        with engine_of(fake_workers, tmp_path) as engine:
            assert engine.evaluate([SQUARE], task())[0].n_memoised == expected


def test_damaged_and_forged_entries_are_not_believed(fake_workers, tmp_path):
    with engine_of(fake_workers, tmp_path) as engine:
        engine.evaluate([SQUARE], task())
    with Store(tmp_path / "evocell.db") as store:
        store.execute("UPDATE memo SET outcome = x'c1' || outcome")
        store.flush_blocking()
    with engine_of(fake_workers, tmp_path) as engine:
        result = engine.evaluate([SQUARE], task())[0]
        assert (result.n_memoised, result.fitness_score) == (0, 1.0)
        assert engine.evaluate([SQUARE], task())[0].n_memoised == 3


def test_long_outcomes_are_encoded_and_decoded_beside_the_loop(fake_workers, tmp_path, monkeypatch):
    threads = {}

    def watch(name):
        real = getattr(memo, name)

        def seen(value):
            threads[name] = threading.get_ident()
            return real(value)

        monkeypatch.setattr(memo, name, seen)

    for name in ("encode_outcome", "decode_outcome", "outcome_digest"):
        watch(name)
    found = {}
    with engine_of(fake_workers, tmp_path) as engine:
        for size in (3, 100_000):
            evaluation = evocell.Evaluation("f", [evocell.Case()], lambda case, value: 1.0, memoise=True)
            for remembered in (0, 1):
                result = engine.evaluate([f"def f(): return bytes({size})"], evaluation)[0]
                assert result.n_memoised == remembered
            assert len(threads) == 3
            found[size] = set(threads.values())
            threads.clear()

    assert len(found[3]) == 1  # the loop's
    assert found[3].isdisjoint(found[100_000])


def test_memory_is_bounded():
    memory = Memory(None, max_bytes=10_000)
    for number in range(100):
        memory.put(str(number), bytes(1_000))
    memory.put("large", bytes(MOST_ENTRY_BYTES + 1))

    assert memory.info().bytes <= 10_000
    assert memory.get("99") is not None
    assert memory.get("0") is memory.get("large") is None


@pytest.mark.trio
async def test_a_cancelled_call_lets_the_next_one_make_it(fake_workers):
    source = "def f(x): return 'hang' if x else x"
    one = task(cases=[evocell.Case(args=(1,), expected=1)])
    async with evocell.AsyncEngine(evocell.Config(), open_worker=fake_workers) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.evaluate, [source], one)
            await fake_workers.last.hanging.wait()
            nursery.start_soon(engine.evaluate, [source], one)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert fake_workers.last.count["call"] == 1
            nursery.cancel_scope.cancel()
        with trio.move_on_after(0.2):
            await engine.evaluate([source], one)
        assert fake_workers.last.count["call"] >= 2


def test_kept_outcomes_are_scored_again_by_the_next_engine(fake_workers, tmp_path):
    with engine_of(fake_workers, tmp_path) as engine:
        engine.evaluate([SQUARE], task())
    changed = task(score=lambda case, value: -abs(value - 4.0), failure=-1e9)
    with engine_of(fake_workers, tmp_path) as engine:
        (result,) = engine.evaluate([SQUARE], changed)
        assert (result.fitness_score, result.n_memoised) == (-7 / 3, 3)
        assert fake_workers.last.count["call"] == 0
