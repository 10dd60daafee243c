"""Loops that go on for longer than there is room for: what is over makes room for what is new."""

from __future__ import annotations

from pathlib import Path

from evocell import Case, Config, Engine, Evaluation

PAGE = Path(__file__).parents[2] / "docs" / "populations.md"


def test_the_loop_of_the_documentation_runs_for_hundreds_of_generations():
    loop = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert "range(50)" in loop
    numbers = iter(range(10_000))
    config = Config.load(workers=1, default_max_processes=40, gc_interval_ms=3_600_000)
    with Engine(config) as engine:
        names = {
            "open_engine": lambda: engine,
            "seeds": ["def f(): return 1", "def f(): return 2"],
            "evaluation": Evaluation("f", [Case(())], lambda case, value: value),
            "mutate": lambda parent: f"def f(): return {next(numbers) % 97}",
            "cross": lambda first, second: f"def f(): return {next(numbers) % 89}",
        }
        body = loop.replace("range(50)", "range(500)").replace(
            "with Engine() as", "if engine := open_engine():  #"
        )
        exec(body, names)
        assert engine.get_population("p").generation == 500
        assert engine.best("p")[0].get_info().fitness == 96
        assert len(engine.list_sandboxes()) <= 40
