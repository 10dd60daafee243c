"""The programs in docs run, with what the text around them takes for granted."""

import re
from contextlib import closing
from pathlib import Path

import pytest

import evocell
from evocell.cli.main import main
from evocell.store.trees import to_dot

DOCS = Path(__file__).parents[2] / "docs"
TASK = evocell.Evaluation("solve", [evocell.Case((n,), expected=n * n) for n in range(3)])
SQUARE = "def solve(n): return n * n"
DOUBLE = "def solve(n): return n + n"


def programs(page):
    return re.findall(
        r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def run(program, **names):
    names = {"evocell": evocell, **names}
    exec(compile(program, "block", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("EVOCELL_WORKERS", "1")


@pytest.fixture(scope="module")
def engine():
    with closing(evocell.Engine(evocell.Config.load(workers=1))) as made:
        yield made


def test_versions(capsys):
    reload, duel = programs("versions.md")
    run(reload)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "('program:rate',)"
    assert {"-    return x", "+    return 2 * x"} <= set(told)
    assert told[-3:] == ["1 seed None None", "2 mutation: part 1 None", "3 rollback 2 1"]
    run(duel)
    assert capsys.readouterr().out == "first 1.0 0.4\n[True, False, True, False, False]\n"


def test_populations():
    (loop,) = programs("populations.md")
    names = run(
        loop.replace("range(50)", "range(2)"),
        seeds=[SQUARE, DOUBLE],
        evaluation=TASK,
        mutate=lambda _parent: DOUBLE,
        cross=lambda _first, _second: SQUARE,
    )
    assert names["second"].id != names["first"].id


def test_images(engine, tmp_path):
    (freezing,) = programs("images.md")
    assert '"dataset.py": "..."' in freezing
    program = freezing.replace('"dataset.py": "..."', '"dataset.py": "DATA = list(range(9))"')
    name = f"data-{tmp_path.name}"
    candidate = "import dataset\ndef solve(n): return dataset.DATA[n] ** 2"
    try:
        names = run(
            program.replace('"data"', repr(name)), engine=engine, cases=TASK.cases, candidates=[candidate] * 2
        )
        (first, second) = engine.evaluate([candidate] * 2, names["task"])
        assert first.fitness_score == second.fitness_score == 1.0
    finally:
        main(["image", "remove", name])


def test_telemetry(engine, capsys):
    handler, stream, bridge = programs("telemetry.md")
    run(handler, sources=[SQUARE], task=TASK)
    assert capsys.readouterr().out == "1.0\n"
    heard = []
    mine = evocell.Telemetry()
    mine.attach("mine", "sandbox.create", lambda event: heard.append(event.name))
    with evocell.Engine(telemetry=mine) as first:
        first.create_sandbox(source=SQUARE)
    assert heard == ["sandbox.create.start", "sandbox.create.stop"]
    pytest.importorskip("opentelemetry")
    run(bridge, sources=[SQUARE], task=TASK)
    with engine.event_stream.subscribe("nothing"):
        run(stream, engine=engine)


def test_store(engine):
    (asking,) = programs("store.md")
    parent, child = engine.batch_create(
        [
            evocell.SandboxSpec(id="parent", source=DOUBLE),
            evocell.SandboxSpec(id="child", source=SQUARE, parent_ids=("parent",)),
        ]
    )
    engine.batch_evaluate([parent, child], TASK)
    run(asking, engine=engine, to_dot=to_dot, id=child.id, a=parent.id, b=child.id, child=child.id)
    assert engine.fitness.get(child.id).score == pytest.approx(0.9)
