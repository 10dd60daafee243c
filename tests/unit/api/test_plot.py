"""Plots show what the report shows, of an engine or of a state directory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import attrs
import pytest

from evocell import Case, Config, ConfigurationError, Engine, Evaluation, plot

pytest.importorskip("matplotlib")

TASK = Evaluation("f", [Case(())], lambda case, value: float(value))


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.fixture
def engine(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as made:
        parents = None
        for generation in range(4):
            sources = [f"def f(): return {generation * 10 + n}" for n in range(3)] + [
                "def f(): raise KeyError"
            ]
            results = made.evaluate(sources, TASK, population="p", generation=generation, parents=parents)
            parents = [results[2].sandbox_id] * 4
        yield made


@pytest.mark.parametrize("name", ["fitness", "cost", "deaths", "lineage"])
def test_a_plot_is_drawn_of_an_engine_and_of_its_directory(engine, tmp_path, name):
    draw = getattr(plot, name)
    for place in (engine, tmp_path, str(tmp_path)):
        axes = draw(place)
        axes.figure.savefig(tmp_path / f"{name}.png")
        assert axes.get_title()
    assert draw(engine, ax=axes) is axes
    assert "Population p" in draw(tmp_path, population="p").get_title()


def test_what_is_drawn_is_what_was_found(engine):
    lines = {line.get_label(): list(line.get_ydata()) for line in plot.fitness(engine).get_lines()}
    assert lines["best so far"] == [2.0, 12.0, 22.0, 32.0]
    assert lines["median"] == [1.0, 11.0, 21.0, 31.0]
    bars = plot.deaths(engine).patches
    assert [bar.get_width() for bar in bars] == [4]
    axes = plot.lineage(engine)
    (points,) = axes.collections
    assert sorted(points.get_offsets().tolist()) == [[0, 2], [1, 12], [2, 22], [3, 32]]


def test_the_front_holds_what_nothing_beats():
    points = [(1, 5.0), (2, 4.0), (3, 9.0), (3, 7.0), (4, 9.0), (0.5, 1.0)]
    assert plot.pareto_front(points, minimize=False) == [(0.5, 1.0), (1, 5.0), (3, 9.0)]
    assert plot.pareto_front(points, minimize=True) == [(0.5, 1.0)]


def test_an_axis_is_logarithmic_where_values_span_decades(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        engine.evaluate([f"def f(): return 10 ** {n}" for n in range(6)], TASK)
        assert plot.fitness(engine).get_yscale() == "log"


@pytest.mark.parametrize(("sign", "direction"), [(1, "minimize"), (-1, "maximize")])
def test_a_few_far_off_are_outside_of_the_axis(fake_workers, tmp_path, sign, direction):
    task = attrs.evolve(TASK, directions=(direction,), failure=sign * 1e9)
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        for generation in range(10):
            scores = [sign * (10 - generation / 2 + n / 10) for n in range(8)] + [sign * 90] * (
                generation == 4
            )
            engine.evaluate([f"def f(): return {score}" for score in scores], task, generation=generation)
        near, far = sorted(map(abs, plot.fitness(engine).get_ylim()))
    assert 5 < near < 5.6
    assert 10.5 < far < 13


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="not of int"):
        plot.fitness(3)


def test_without_matplotlib_a_sentence_says_what_to_install(engine):
    program = """
    import sys
    sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
    from evocell import plot
    try:
        plot.fitness(sys.argv[1])
    except Exception as error:
        print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(engine.config.state_dir)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "pip install evocell[plot]" in done.stdout


def test_the_page_of_the_report_is_shown_in_a_cell(engine, tmp_path):
    page = plot.report(engine, title="A <title>")
    shown = page._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts"' in shown
    assert "<script" not in shown  # it is in the frame's attribute, escaped
    assert page.save(tmp_path / "page.html").read_text().startswith("<!")
