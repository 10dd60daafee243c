import argparse
from types import SimpleNamespace

import pytest
from rich.console import Console

from evocell.cli import demo, demo_result, demo_view

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
        {"id": "g01-004", "operator": "part", "parents": ["g01-003"], "excess": 0.04, "nodes": 3},
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
    told = {
        "number": number,
        "judged": 10,
        "population": 10,
        "complete": True,
        "history": (None, 0.05, 0.04)[: number + 1],
        "mean_excess": 0.06,
        "best_source": "import numpy as np\n\n\ndef priority(item, bins):\n    return -bins\n",
        "baseline": 0.045,
        "deaths": {"fuel": 1, "memory": 2},
        "saboteurs": {"endless loop": "fuel", "forged packing": None},
        "evaluations": 10 * (number + 1),
        "wall_s": 2.0,
    }
    return SimpleNamespace(**{**told, **changes})


def drawn(panel, width=100):
    console = Console(width=width, height=40, force_terminal=True, color_system=None)
    with console.capture() as printed:
        console.print(panel)
    return printed.get()


def parse(*options):
    parser = argparse.ArgumentParser()
    demo.add_demo_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *options])


def test_the_defaults_are_the_headline_run():
    args = parse()
    assert (args.generations, args.population, args.json) == (20, 50, False)
    assert args.run is demo.run_demo


@pytest.mark.parametrize(
    "options", [["--seed", "-1"], ["--generations", "0"], ["--population", "5"], ["--seed", "x"]]
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


def test_saboteurs_that_do_not_die_as_their_labels_say_are_named():
    lying = {"label": "bomb", "died_of": "raised", "expected": "memory"}
    assert demo.unexpected_fates({"saboteurs": RESULT["saboteurs"][:1]}) == []
    assert demo.unexpected_fates({"saboteurs": [*RESULT["saboteurs"], lying]}) == [
        "the saboteur 'os._exit' should have died of 'crashed', but it lived",
        "the saboteur 'bomb' should have died of 'memory', but it died of 'raised'",
    ]


def test_without_a_terminal_each_generation_is_a_line():
    console = Console(width=100, force_terminal=False)
    with (
        console.capture() as printed,
        demo_view.open_view(12, population=10, seed=4, console=console) as view,
    ):
        view.watch(progress(0, judged=3, complete=False))
        view.watch(progress(0))
        view.watch(progress(1))
    lines = printed.get().splitlines()
    assert lines[0] == "evocell demo: online bin packing, 12 generations of 10 programs, seed 4"
    assert lines[2:] == [
        "generation  1/12  best excess -  mean 6.00 %  5.0 evaluations/s  deaths: fuel 1, memory 2",
        "generation  2/12  best excess 5.00 %  mean 6.00 %  10.0 evaluations/s  deaths: fuel 1, memory 2",
    ]


def test_a_terminal_ends_with_the_last_state_and_no_word_of_what_is_next():
    console = Console(width=100, height=40, force_terminal=True, color_system=None)
    with (
        console.capture() as printed,
        demo_view.open_view(3, population=10, seed=4, console=console) as view,
    ):
        view.watch(progress(2))
    before, _, after = printed.get().partition("measuring the best on held-out instances")
    assert "3 generations of 10 programs, seed 4" in before
    assert "3 of 3" in after
    assert "measuring" not in after


def test_the_display_is_drawn_a_few_times_a_second_only():
    drawings = []
    live = SimpleNamespace(update=lambda panel, refresh: drawings.append(panel))
    times = iter([0.0, 0.0, 0.01, 0.02, 0.5, 0.5])
    console = Console(width=100, force_terminal=True)
    view = demo_view.View(console, 3, live, clock=lambda: next(times))
    for _ in range(4):
        view.watch(progress(0, complete=False))
    assert len(drawings) == 2


def test_the_dashboard_shows_where_the_run_is():
    shown = drawn(demo_view.dashboard(progress(2), 12))
    for words in (
        "3 of 12",
        "4.00 % (best-fit 4.50 %)",
        "6.00 %",
        "30, 15.0 per second",
        "fuel 1, memory 2",
        "endless loop: fuel",
        "forged packing: ...",
        "    return -bins",
    ):
        assert words in shown


def test_the_first_dashboard_has_nothing_to_show_yet():
    early = progress(0, judged=0, history=(), mean_excess=None, best_source=None, deaths={}, wall_s=0.0)
    shown = drawn(demo_view.dashboard(early, 12))
    assert "1 of 12" in shown
    assert "deaths       none" in shown
    assert "def " not in shown


@pytest.mark.parametrize("height", [24, 40])
def test_the_dashboard_fits_a_terminal_of_80_columns(height):
    long = "def priority(item, bins):\n" + 8 * "    item = item + 1\n" + "    return -bins\n"
    told = progress(2, best_source=long, history=(0.05,) * 20)
    lines = drawn(demo_view.dashboard(told, 20, width=80, height=height, note="measuring"), 80).splitlines()
    assert len(lines) < height
    assert {len(line) for line in lines} == {80}
    assert any("return -bins" in line for line in lines) == (height == 40)


def chart(history, **options):
    return [line.plain for line in demo_view.chart(history, blocks=" .#", **options)]


def test_the_chart_scales_between_its_extremes():
    lines = chart([0.05, None, 0.04, 0.03], columns=4, width=8, rows=2)
    assert lines == ["  5.00 % ##  ..  ", "  3.00 % ##  ##.."]
    assert chart([0.04], columns=4, width=8, rows=1) == ["  4.00 % .."]
    assert chart([None, None], columns=4, width=8) == []


def test_the_chart_reaches_up_to_its_ceiling_and_beyond():
    assert chart([0.03, 0.04], columns=2, width=2, rows=2, ceiling=0.05) == ["  5.00 %  .", "  3.00 % .#"]
    assert chart([0.03, 0.04], columns=2, width=2, rows=1, ceiling=0.02) == ["  4.00 % .#"]


def test_a_chart_of_many_generations_leaves_some_out():
    falling = [1 - number / 100 for number in range(100)]
    (line,) = chart(falling, columns=100, width=10, rows=1)
    assert line == "100.00 % " + "#" * 5 + "." * 5


def test_the_result_names_everything_that_was_asked_for():
    console = Console(width=100, force_terminal=False)
    with console.capture() as printed:
        demo_result.show_result(console, RESULT, options="--seed 4")
    shown = printed.get()
    for words in (
        "20 programs evaluated in 2.0 s, 10.0 per second",
        "    return item - bins",
        "Weibull, 5 x 2,000 items",
        "1.81 %",
        "g00-001 + g00-004",
        "mutation: part",
        "12,345",
        "stopped at [the] limit",
        "nothing: it lives",
        "On held-out Weibull instances it beats best-fit, 1.81 % against 4.50 %.",
        "digest " + "ab" * 32,
        "run again with --seed 4: same digest",
    ):
        assert words in shown


def test_a_program_that_is_no_better_or_died_is_said_to_be():
    told = {
        "Weibull": {"excess": {"best_fit": 0.04, "evolved": 0.05}},
        "other": {"excess": {"best_fit": 0.04, "evolved": None}, "error": "stopped"},
    }
    assert demo_result.verdict(told) == [
        "On held-out Weibull instances it does not beat best-fit, 5.00 % against 4.00 %.",
        "On held-out other instances it died: stopped",
    ]


def test_long_tables_are_cut_in_the_middle():
    line = [{**RESULT["lineage"][0], "id": f"g{number:02}-000"} for number in range(30)]
    front = [{"id": f"p{number:02}", "fuel_per_item": number, "excess": 0.1} for number in range(30)]
    console = Console(width=100, force_terminal=False)
    with console.capture() as printed:
        console.print(demo_result.lineage_table(line))
        console.print(demo_result.fuel_table(front, blocks=" #"))
    shown = printed.get()
    assert "... 21 more" in shown
    assert "; 9 of 30" in shown
    for words in ("g00-000", "g29-000", "p00", "p29"):
        assert words in shown
    assert "g10-000" not in shown
