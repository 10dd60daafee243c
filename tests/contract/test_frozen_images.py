"""Forks of sandboxes and images made of them, over the real image and both kinds of worker."""

from __future__ import annotations

import pytest
from attrs import evolve

import evocell
from evocell import Case, Config, Evaluation
from evocell_runtime.cache import ImageCache
from evocell_runtime.hot_pages import written_pages

SOURCE = {
    "dataset.py": """
import numpy as np
ROWS, TABLE = [], None

def load(n):
    global TABLE
    ROWS.extend(float(i) for i in range(n))
    TABLE = np.arange(n, dtype=float)
    return len(ROWS)
""",
    "program.py": """
import dataset
count = 0

def load(n):
    return dataset.load(n)

def bump():
    global count
    count += 1
    return count

def open_file():
    global stream
    stream = open("/usr/local/lib/python315.zip", "rb")

def close_file():
    stream.close()

def note(text=None):
    if text is not None:
        with open("/tmp/note", "w") as out:
            out.write(text)
    with open("/tmp/note") as file:
        return file.read()

def own_file():
    with open("/app/words.txt") as file:
        return file.read()
""",
    "words.txt": "own words",
}
READER = "import dataset\ndef total(n): return [sum(dataset.ROWS) + n, float(dataset.TABLE.sum())]"


@pytest.fixture
def sandbox(engine_of_one):
    with engine_of_one.create_sandbox(source=SOURCE, limits=evocell.Limits(scratch_bytes=1 << 20)) as made:
        assert made.run("load", args=(1000,)).unwrap() == 1000
        yield made


def test_a_fork_holds_what_its_parent_held_and_then_goes_its_own_way(engine_of_one, sandbox):
    sandbox.run("bump")
    sandbox.run("note", args=("parents",))
    with sandbox.fork("twin") as twin:
        assert twin.run("bump").unwrap() == sandbox.run("bump").unwrap() == 2
        assert twin.run("bump").fuel_used == sandbox.run("bump").fuel_used
        assert twin.run("note", args=("twins",)).unwrap() == "twins"
        assert sandbox.run("note").unwrap() == "parents"
        state, parent = twin.get_info(), sandbox.get_info()
        assert (state.parent_ids, state.mutation_type) == ((sandbox.id,), "fork")
        assert (state.version, state.lineage_depth) == (parent.version, parent.lineage_depth + 1)
        assert state.supervisor == parent.supervisor is not None
    assert sandbox.run("bump").unwrap() == 4


def test_a_fork_of_a_sandbox_that_was_never_called(engine_of_one):
    with engine_of_one.create_sandbox(source=SOURCE) as fresh, fresh.fork() as twin:
        assert [twin.run("bump").unwrap(), fresh.run("bump").unwrap()] == [1, 1]


def test_many_forks_at_once(engine_of_one, sandbox):
    sandbox.run("bump")
    forks = engine_of_one.batch_fork(sandbox, 5)
    assert [fork.run("bump").unwrap() for fork in forks] == [2] * 5
    engine_of_one.batch_destroy(forks)


def test_a_sandbox_with_a_file_open_is_neither_forked_nor_frozen(engine_of_one, sandbox):
    before = len(engine_of_one.list_sandboxes())
    sandbox.run("open_file")
    with pytest.raises(evocell.SandboxBusy, match=r"files open \(1\)"):
        sandbox.fork()
    with pytest.raises(evocell.SandboxBusy, match="files open"):
        sandbox.freeze("not-now")
    assert len(engine_of_one.list_sandboxes()) == before
    sandbox.run("close_file")
    sandbox.fork().destroy()


def test_an_image_goes_on_where_the_sandbox_was(engine_of_one, sandbox):
    sandbox.run("bump")
    image = sandbox.freeze("goes-on", replace=True)
    assert (image.name, image.parent_id, image.version) == (
        "goes-on",
        engine_of_one.image_id,
        sandbox.get_info().version,
    )
    assert sandbox.run("bump").unwrap() == 2  # it stays as it was
    with engine_of_one.create_sandbox(image="goes-on") as later:
        assert later.get_info().version == image.version
        assert later.run("own_file").unwrap() == "own words"
        assert [later.run("bump").unwrap() for _ in range(2)] == [2, 3]
        assert later.run("bump", isolation="call").unwrap() == 2
        assert later.fork().run("bump").unwrap() == 4


def test_candidates_find_what_was_loaded_and_none_loads_it_again(engine_of_one, sandbox):
    sandbox.freeze("dataset", replace=True)
    task = Evaluation("total", [Case((n,)) for n in range(3)], lambda case, value: value[0], image="dataset")
    results = engine_of_one.evaluate([READER, READER.replace("+ n", "* n"), "def total(n): 1/0"], task)
    assert [result.fitness_score for result in results] == [499_501.0, 499_500.0, 0.0]
    assert [result.reason for result in results] == [None, None, "raised"]
    again = engine_of_one.evaluate([READER], task)[0]
    assert evolve(again, sandbox_id=results[0].sandbox_id) == results[0]
    assert sum(case.outcome.peak_memory_bytes for case in again.test_results) == 0


def test_sandboxes_of_an_image_are_evaluated_in_it(engine_of_one, sandbox):
    sandbox.freeze("of-it", replace=True)
    sandbox.run("bump")
    sandbox.freeze("another", replace=True)
    task = Evaluation("bump", [Case((), expected=1)])
    kept = engine_of_one.create_sandbox(image="of-it")
    assert engine_of_one.batch_evaluate([kept], task)[0].fitness_score == 1.0
    with pytest.raises(evocell.ConfigurationError, match="starts from 'of-it'"):
        engine_of_one.batch_evaluate([kept], Evaluation("bump", [Case((), expected=1)], image="another"))
    kept.destroy()


def test_kept_individuals_stay_in_the_image_of_their_evaluation(engine_of_one, sandbox):
    sandbox.freeze("kept", replace=True)
    task = Evaluation("total", [Case((0,))], lambda case, value: value[0], image="kept")
    result = engine_of_one.evaluate([READER], task, population="kept")[0]
    assert engine_of_one.run(result.sandbox_id, "total", args=(1,)).unwrap()[0] == 499_501.0
    engine_of_one.destroy_sandbox(result.sandbox_id)


def test_a_freeze_of_the_same_state_is_the_same_image(engine_of_one, sandbox):
    one, two = sandbox.freeze("same-1", replace=True), sandbox.freeze("same-2", replace=True)
    assert one.id == two.id
    sandbox.run("bump")
    assert sandbox.freeze("same-2", replace=True).id != one.id
    names = {image.name: image.id for image in engine_of_one.list_images()}
    assert (names["same-1"], names["same-2"] != one.id) == (one.id, True)


def test_a_name_that_is_taken_is_refused(engine_of_one, sandbox):
    sandbox.freeze("taken", replace=True)
    sandbox.run("bump")
    with pytest.raises(evocell.ConfigurationError, match="there is an image named 'taken' already"):
        sandbox.freeze("taken")
    with pytest.raises(evocell.ConfigurationError, match="there is no image 'nowhere'; there are"):
        engine_of_one.create_sandbox(image="nowhere")


def test_an_image_outlives_its_engine_and_is_sound(engine_of_one, sandbox, copied_cache):
    sandbox.run("bump")
    image = sandbox.freeze("durable", replace=True)
    assert ImageCache(copied_cache).verify(image.id) == []
    config = Config.load(workers=1, cache_dir=copied_cache)
    with evocell.Engine(config) as later, later.create_sandbox(image="durable") as found:
        assert found.run("bump").unwrap() == 2


def test_an_image_that_was_removed_is_missed_with_a_sentence(engine_of_one, sandbox, copied_cache):
    sandbox.run("bump")
    sandbox.run("bump")
    image = sandbox.freeze("short-lived", replace=True)
    made = engine_of_one.create_sandbox(image="short-lived")
    ImageCache(copied_cache).remove(image.id)
    with pytest.raises(evocell.ImageError, match="there is no image"):
        made.run("bump")
    made.destroy()


def test_a_reload_that_waits_for_the_next_call_is_frozen_as_well(engine_of_one, sandbox):
    sandbox.run("bump")
    sandbox.hot_reload_source(SOURCE | {"program.py": "def new(): return ['new', count]"}, keep_state=True)
    sandbox.freeze("reloaded", replace=True)
    with engine_of_one.create_sandbox(image="reloaded") as later:
        assert later.run("new").unwrap() == ["new", 1]


def test_forks_share_the_pages_of_what_they_only_look_at(copied_cache):
    """Looking at an object changes its count of references; those of the image have none to change."""
    look = "import dataset\ndef look(): return sum(dataset.ROWS)\ndef idle(): return 0.0"
    with evocell.Engine(Config.load(workers=0, cache_dir=copied_cache)) as engine:
        with engine.create_sandbox(source=SOURCE) as sandbox:
            sandbox.run("load", args=(50_000,))
            sandbox.freeze("shared", replace=True)
        pages = {}
        for entry in ("look", "idle"):
            with engine.create_sandbox(image="shared", source=look) as made:
                assert made.run(entry).ok
                (session,) = engine._engine._worker.host._sessions.values()
                memory = session.fork.instance.memory
                runs = written_pages(memory.address, memory.size_bytes)
                pages[entry] = sum(run.size for run in runs) // 4096
    assert pages["look"] <= pages["idle"] + 8  # the floats lie in some two hundred


def test_evaluations_in_a_frozen_image_are_replayed_in_it(copied_cache, tmp_path):
    config = Config.load(workers=1, cache_dir=copied_cache, state_dir=tmp_path)
    with evocell.Engine(config) as engine:
        with engine.create_sandbox(source=SOURCE) as sandbox:
            sandbox.run("load", args=(50,))
            sandbox.run("bump")
            sandbox.freeze("replayed", replace=True)
        with engine.create_sandbox(image="replayed") as kept:
            task = Evaluation("bump", [Case((), expected=2)])
            assert engine.batch_evaluate([kept], task)[0].fitness_score == 1.0
        reader = Evaluation("total", [Case((1,))], lambda case, value: value[0], image="replayed")
        assert engine.evaluate_one(READER, reader).fitness_score == 1226.0
        records = engine.evaluation_records()
        assert len({record.call.image for record in records}) == 1
        for record in records:
            replay = engine.replay(record)
            assert replay.same, replay.differences


def test_memoised_outcomes_are_those_of_their_image(copied_cache, tmp_path):
    with evocell.Engine(Config.load(workers=0, cache_dir=copied_cache)) as engine:
        task = Evaluation("total", [Case((0,))], lambda case, value: value[0], image="memo", memoise=True)
        for n, expected in ((10, 45.0), (20, 190.0)):
            with engine.create_sandbox(source=SOURCE) as sandbox:
                sandbox.run("load", args=(n,))
                sandbox.freeze("memo", replace=True)
            assert [engine.evaluate_one(READER, task).fitness_score for _ in range(2)] == [expected] * 2
        assert engine.memo_info().hits == 2
