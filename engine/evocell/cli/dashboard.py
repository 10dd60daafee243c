"""`evocell dashboard`: the page of a report that follows a run as it goes, in a browser of this machine."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from evocell.cli.screen import complain, say
from evocell.cli.store import add_directory, store_path
from evocell.page.following import Following
from evocell.page.html import render, security_policy
from evocell.page.server import PageServer, open_server
from evocell.store.database import open_reader

__all__ = ["add_dashboard_parser"]

_POLL_S = 0.5
_MAX_PORT = 65_535


def add_dashboard_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `dashboard` to the parser."""
    dashboard = commands.add_parser(
        "dashboard",
        help="follow a run in the browser, as it goes",
        description=(
            "Serves the page of `evocell report` to the browser of this machine, and keeps it up to date "
            "while engines are at work in the state directory. It reads only. The address that is printed "
            "holds a token; whoever does not know it sees nothing. Leave it with Ctrl-C."
        ),
    )
    add_directory(dashboard)
    dashboard.add_argument(
        "--port", type=_port, default=0, metavar="N", help="the port to listen on (default: a free one)"
    )
    dashboard.add_argument(
        "--no-open", dest="opens", action="store_false", help="do not open a browser, print the address only"
    )
    dashboard.set_defaults(run=run_dashboard)


def run_dashboard(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    path = store_path(args.state_dir)
    open_reader(path).close()  # what is wrong with it is said before there is an address
    page = render({"live": True, "title": f"evocell: {path.absolute().parent.name}"}, live=True)
    with ExitStack() as stack:
        following = stack.enter_context(closing(Following(path)))
        answers = {
            "views": lambda _: following.views(),
            "data": following.data,
            "member": following.member,
        }
        token = secrets.token_urlsafe(24)
        opening = open_server(args.port, token, (page, security_policy(live=True)), answers)
        server = stack.enter_context(opening)
        stack.enter_context(_ended_by_signals(server))
        say(server.address)
        sys.stdout.flush()
        complain("the page follows the run; Ctrl-C ends it")
        if args.opens and _has_screen():
            stack.enter_context(_opened(server.address))
        server.serve_forever(_POLL_S)
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write a number from 0 to {_MAX_PORT}")
    return int(text)


def _has_screen() -> bool:
    """Whether somebody looks who can see a browser."""
    return sys.stdout.isatty() and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@contextmanager
def _ended_by_signals(server: PageServer) -> Iterator[None]:
    """End the server at Ctrl-C and when it is asked to; a second time ends the process as ever."""
    ending: list[threading.Thread] = []

    def end(number: int, _frame: FrameType | None) -> None:
        # It waits until the loop has ended, which runs in this very thread.
        ending.append(threading.Thread(target=server.shutdown))
        ending[-1].start()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for thread in ending:
            thread.join()


@contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open the browser through a file that only this user can read: arguments of a process all can see."""
    with TemporaryDirectory(prefix="evocell-dashboard-") as place:
        path = Path(place) / "open.html"
        target = escape(address)
        refresh = f'<meta http-equiv="refresh" content="0; url={target}">'
        text = f'<!doctype html>{refresh}<a href="{target}">evocell</a>'
        path.write_text(text, encoding="utf-8")
        with suppress(webbrowser.Error):
            webbrowser.open(path.as_uri())
        yield
