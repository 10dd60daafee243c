import argparse
from types import SimpleNamespace

import pytest
from rich.console import Console

from evocell.cli import demo, demo_view

RESULT = {
    "seed": 4,
    "generations": 2,
    "population": 10,
    "evaluations": 20,
    "deaths": {"fuel": 1},
    "evolution_wall_s": 2.0,
    "evaluations_per_s": 10.0,
    "best": {"id": "g01-003", "source": "def priority(item, bins):\n    return item - bins\n"},
    "lineage": [
        {"id": "g00-001", "operator": "random", "parents": [], "excess": 0.05, "nodes": 9},
        {
            "id": "g01-003",
            "operator": "crossover",
            "parents": ["g00-001", "g00-004"],
            "excess": 0.04,
            "nodes": 3,
        },
    ],
    "excess_against_fuel": [{"id": "g01-003", "fuel_per_item": 12_345, "excess": 0.04}],
    "held_out": {
        "Weibull": {
            "instances": [{"name": "w", "items": 2_000, "lower_bound": 800}] * 5,
            "excess": {"first_fit": 0.05, "best_fit": 0.045, "evolved": 0.0181},
        }
    },
    "saboteurs": [
        {"label": "endless loop", "died_of": "fuel", "expected": "fuel", "detail": "stopped at [the] limit"},
        {"label": "os._exit", "died_of": None, "expected": "crashed", "detail": ""},
    ],
    "digest": "ab" * 32,
}


def progress(number, **changes):
    now = SimpleNamespace(number=number, mean_excess=0.06)
    told = {
        "generation": now,
        "history": (None, 0.05, 0.04)[: number + 1],
        "baseline": 0.045,
        "deaths": {"fuel": 1, "memory": 2},
        "evaluations": 10 * (number + 1),
        "wall_s": 2.0,
    }
    return SimpleNamespace(**{**told, **changes})


def parse(*options):
    parser = argparse.ArgumentParser()
    demo.add_demo_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *options])


def test_the_defaults_are_the_headline_run():
    args = parse()
    assert (args.generations, args.population, args.json) == (20, 50, False)
    assert args.run is demo.run_demo


@pytest.mark.parametrize(
    "options", [["--seed", "-1"], ["--generations", "0"], ["--population", "9"], ["--seed", "x"]]
)
def test_numbers_out_of_range_are_refused_with_the_reason(options, capsys):
    with pytest.raises(SystemExit):
        parse(*options)
    assert "is not a whole number from" in capsys.readouterr().err


def test_the_options_that_repeat_a_run_leave_out_defaults():
    assert demo.repeating_options(parse("--seed", "9")) == "--seed 9"
    args = parse("--generations", "3", "--population", "12")
    assert demo.repeating_options(args) == "--seed 1 --generations 3 --population 12"


def test_the_example_is_found_and_loaded_once():
    saboteurs = demo.load_example("saboteurs")
    assert len(saboteurs.SABOTEURS) == 5
    assert demo.load_example("saboteurs") is saboteurs


def test_one_survivor_among_the_saboteurs_is_noticed():
    assert not demo.saboteurs_died(RESULT)
    assert demo.saboteurs_died({"saboteurs": RESULT["saboteurs"][:1]})


def test_without_a_terminal_each_generation_is_a_line():
    console = Console(width=100, force_terminal=False, record=True, quiet=True)
    console.quiet = False
    with console.capture() as printed, demo_view.open_view(12, console) as view:
        view.watch(progress(0))
        view.watch(progress(1))
    assert printed.get().splitlines() == [
        "generation  1/12  best -  mean 6.00 %  5.0 evaluations/s  deaths: fuel 1, memory 2",
        "generation  2/12  best 5.00 %  mean 6.00 %  10.0 evaluations/s  deaths: fuel 1, memory 2",
    ]


def test_the_dashboard_shows_where_the_run_is():
    console = Console(width=100, force_terminal=True)
    with console.capture() as printed:
        console.print(demo_view.dashboard(progress(2), 12))
    shown = printed.get()
    for words in ("3 of 12", "4.00 %", "4.50 %", "6.00 %", "15.0", "fuel 1, memory 2"):
        assert words in shown


def test_the_chart_scales_between_its_extremes():
    lines = [line.plain for line in demo_view.chart([0.05, None, 0.04, 0.03], rows=2, blocks=" .#")]
    assert lines == ["  5.00 % ##  ..  ", "  3.00 % ##  ##.."]
    assert [line.plain for line in demo_view.chart([0.04], rows=1, blocks=" .#")] == ["  4.00 % .."]
    assert demo_view.chart([None, None]) == []


def test_the_result_names_everything_that_was_asked_for():
    console = Console(width=100, force_terminal=False)
    with console.capture() as printed:
        demo_view.show_result(console, RESULT, options="--seed 4")
    shown = printed.get()
    for words in (
        "    return item - bins",
        "Weibull, 5 x 2,000 items",
        "1.81 %",
        "g00-001 + g00-004",
        "12,345",
        "stopped at [the] limit",
        "nothing: it lives",
        "digest " + "ab" * 32,
        "run again with --seed 4: same digest",
    ):
        assert words in shown
