"""`evocell demo`: evolve a bin-packing heuristic inside sandboxes and show the result.

The evolution itself is an example outside the engine, because making new programs is the caller's task; this
module imports and runs it, and displays its progress.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attrs import evolve

from evocell.cli.screen import complain, say_json
from evocell.config import Config
from evocell.console.progress import console_progress
from evocell.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from evocell.api.engine import Engine

EXAMPLE = "bin_packing"
DEFAULT_GENERATIONS = 20
DEFAULT_POPULATION = 50
SMALLEST_POPULATION = 6
"""Five programs of the first generation are saboteurs."""

_MODULE = f"evocell_example_{EXAMPLE}"


def add_demo_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the parser."""
    demo = commands.add_parser(
        "demo",
        help="evolve a bin-packing heuristic inside sandboxes",
        description=(
            "Evolves priority(item, bins) for online bin packing. Every candidate is untrusted code in a "
            "sandbox of its own; five of the first generation are hostile and are seen to die."
        ),
    )
    demo.add_argument(
        "--seed",
        type=_whole_number(0),
        default=1,
        metavar="N",
        help="decides the whole run: same seed, same result (default: %(default)s)",
    )
    demo.add_argument(
        "--generations",
        type=_whole_number(1),
        default=DEFAULT_GENERATIONS,
        metavar="N",
        help="generations to evolve (default: %(default)s)",
    )
    demo.add_argument(
        "--population",
        type=_whole_number(SMALLEST_POPULATION),
        default=DEFAULT_POPULATION,
        metavar="N",
        help="programs tried in each generation (default: %(default)s)",
    )
    demo.add_argument(
        "--json",
        action="store_true",
        help="print the result as JSON and nothing else; only fields ending in _wall_s or _per_s vary",
    )
    demo.add_argument(
        "--report", type=Path, metavar="FILE", help="write a page that shows the run, see `evocell report`"
    )
    demo.set_defaults(run=run_demo)


def run_demo(args: argparse.Namespace) -> int:
    """Run the demo.

    Args:
        args: The options that `add_demo_parser` describes.

    Returns:
        0 if the five saboteurs failed as expected, else 1.

    Raises:
        EvocellError: The engine cannot start, or failed.
    """
    from evocell.api.engine import Engine
    from evocell.cli.report import write_report

    config = Config.load()
    if args.report is not None and not args.report.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no directory {args.report.absolute().parent}", "report")
    with ExitStack() as held:
        if args.report is not None and config.state_dir is None:
            config = evolve(config, state_dir=held.enter_context(TemporaryDirectory(prefix="evocell-demo-")))
        with console_progress() as building:
            engine = Engine(config, progress=building)
        with engine:
            wrong = _run_on(engine, args)
        if args.report is not None and config.state_dir is not None:
            write_report(config.state_dir, args.report, title="Online bin packing")
            complain(f"report written to {args.report}")
    for sentence in wrong:
        complain(sentence)
    return 1 if wrong else 0


def _run_on(engine: Engine, args: argparse.Namespace) -> list[str]:
    """Run and display the demo on an engine; return deviations from the expected course as sentences."""
    from evocell.cli.demo_result import show_result
    from evocell.cli.demo_view import open_view

    experiment = load_example("experiment")
    size = {"generations": args.generations, "population": args.population}
    if args.json:
        result = experiment.run_experiment(engine, seed=args.seed, **size)
        say_json(result, indent=2, sort_keys=True)
    else:
        with open_view(**size, seed=args.seed) as view:
            result = experiment.run_experiment(engine, seed=args.seed, **size, watch=view.watch)
        show_result(view.console, result, options=repeating_options(args))
    return unexpected_fates(result)


def repeating_options(args: argparse.Namespace) -> str:
    """Return the options that repeat a run, without defaults."""
    options = f"--seed {args.seed}"
    if args.generations != DEFAULT_GENERATIONS:
        options += f" --generations {args.generations}"
    if args.population != DEFAULT_POPULATION:
        options += f" --population {args.population}"
    return options


def unexpected_fates(result: dict[str, Any]) -> list[str]:
    """Return a sentence for each saboteur that did not end as labelled."""
    return [
        f"the saboteur {one['label']!r} should have died of {one['expected']!r}, "
        f"but it {'died of ' + repr(one['died_of']) if one['died_of'] else 'lived'}"
        for one in result["saboteurs"]
        if one["died_of"] != one["expected"]
    ]


def load_example(name: str) -> ModuleType:
    """Import a module of the bin-packing example, from the installed package or from a checkout.

    Args:
        name: Module inside the example, such as ``experiment``.

    Raises:
        ConfigurationError: The example is missing.
    """
    if _MODULE not in sys.modules:
        folder = _example_folder()
        spec = importlib.util.spec_from_file_location(
            _MODULE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise ConfigurationError(f"{folder} cannot be imported", "demo")
        package = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_MODULE}.{name}")


def _example_folder() -> Path:
    here = Path(__file__).resolve()
    installed = here.parents[1] / "examples" / EXAMPLE
    checkout = here.parents[3] / "examples" / EXAMPLE
    for folder in (installed, checkout):
        if (folder / "__init__.py").is_file():
            return folder
    raise ConfigurationError(
        f"the example {EXAMPLE} is neither in {installed} nor in {checkout}; reinstall evocell", "demo"
    )


def _whole_number(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = lowest - 1
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest}")
        return number

    return parse
