"""The `evocell` command: argument parsing, dispatch, and the output of errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from evocell.cli.audit import add_audit_parser
from evocell.cli.bench import add_bench_parser
from evocell.cli.dashboard import add_dashboard_parser
from evocell.cli.demo import add_demo_parser, run_demo
from evocell.cli.doctor import add_doctor_parser
from evocell.cli.image import add_image_parser
from evocell.cli.layer import add_layer_parser
from evocell.cli.replay import add_replay_parser
from evocell.cli.report import add_report_parser
from evocell.cli.screen import complain
from evocell.cli.serve import add_serve_parser
from evocell.cli.store import add_store_parser
from evocell.cli.top import add_top_parser
from evocell.cli.verify_determinism import add_verify_parser
from evocell.errors import EvocellError
from evocell.models.foreign import clean_line, clean_log, clean_traces
from evocell_runtime.errors import ImageError as RuntimeImageError

_FAILED = 2
_INTERRUPTED = 130
_READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one `evocell` command.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0 done, 1 a check found a problem, 2 an error that one sentence on standard
        error explains, 130 interrupted, 141 the reader of the output has closed it.
    """
    if argv is None:
        clean_traces()  # an internal error: the message may quote anything
    args = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int | None] = args.run
    try:
        with clean_log():
            return command(args) or 0
    except (EvocellError, RuntimeImageError) as error:
        complain(str(error))
        return _FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; redirect it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all sub-commands."""
    parser: argparse.ArgumentParser = _Parser(
        prog="evocell",
        description="Runs evolved, untrusted Python in WebAssembly sandboxes.",
    )
    parser.add_argument("--version", action="version", version=version_line())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_demo_parser(commands)
    commands.choices["demo"].set_defaults(run=run_demo)
    add_bench_parser(commands)
    add_image_parser(commands)
    add_layer_parser(commands)
    add_doctor_parser(commands)
    add_store_parser(commands)
    add_report_parser(commands)
    add_dashboard_parser(commands)
    add_top_parser(commands)
    add_serve_parser(commands)
    add_audit_parser(commands)
    add_replay_parser(commands)
    add_verify_parser(commands)
    return parser


def version_line() -> str:
    """Return the versions of this release and of its runtime."""
    try:
        own = version("evocell")
    except PackageNotFoundError:
        own = "(not installed)"
    return f"evocell {own} (wasmtime {version('wasmtime')})"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, in the form of all other errors of the command."""

    def error(self, message: str) -> NoReturn:
        """Print the fault of the arguments and a hint to the help, and exit."""
        self.exit(_FAILED, f"evocell: {clean_line(message)}; `{self.prog} --help` lists what there is\n")
