"""`evocell layer build | packages`: layers of pure-Python packages for the guest."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from rich.table import Table
from rich.text import Text

from evocell.cli.screen import open_screen, say
from evocell.console.safe import SafeConsole


def add_layer_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `layer` and its sub-commands to the parser."""
    layer = commands.add_parser(
        "layer",
        help="pack pure-Python packages for the sandboxes",
        description="A layer is a zip of pure-Python packages that an image puts on the guest's path.",
    )
    actions = layer.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="resolve a requirements file for the guest and pack what it needs",
        description=(
            "Resolve a requirements file for the guest's Python, with all dependencies, and pack the wheels. "
            "What is compiled is refused by name; what the image has already is not packed again."
        ),
    )
    build.add_argument("requirements", type=Path, metavar="REQUIREMENTS", help="a file in pip's form")
    build.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="ZIP",
        help="where to write it (default: beside the requirements, with .zip for a suffix)",
    )
    build.set_defaults(run=run_build)
    packages = actions.add_parser(
        "packages",
        help="list the packages that every image has already",
        description="List the packages that every image has already.",
    )
    packages.set_defaults(run=run_packages)


def run_build(args: argparse.Namespace) -> int:
    """Build a layer, and print its contents and usage."""
    from evocell_runtime.layers import build_layer

    output = args.output or args.requirements.with_suffix(".zip")
    console = SafeConsole(stderr=True)
    with console.status("resolving") as status:
        built = build_layer(args.requirements, output, lambda step: status.update(Text(step)))
    table = Table(show_edge=False)
    table.add_column("package")
    table.add_column("version")
    table.add_column("where")
    for package in built.packages:
        table.add_row(package.name, package.version, "in the layer")
    for package in built.provided:
        table.add_row(package.name, package.version, "in every image")
    open_screen(highlight=False).print(table)
    data = built.path.read_bytes()
    say(
        f"{built.path}: {len(data) / 1e6:.1f} MB, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}\n"
        f"use it: Config(layers=({str(built.path)!r},)), or EVOCELL_LAYERS={built.path}"
    )
    return 0


def run_packages(_: argparse.Namespace) -> int:
    """Print the packages of the interpreter."""
    from evocell_runtime.layers import provided_packages

    for package in provided_packages():
        say(str(package))
    return 0
