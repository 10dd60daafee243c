"""The display of an image's build, on a terminal and in a log."""

import io
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

import evocell
from evocell.console.progress import ConsoleProgress, announcement, duration
from evocell_runtime.build import BuildProgress as Report

BUILD = [
    Report("rewriting the interpreter", 0, 3, 0.0, 0.0, 110.0),
    Report("compiling the interpreter", 1, 3, 0.1, 1.0, 109.0),
    Report("compiling the interpreter", 1, 3, 0.2, 9.0, 101.0),
    Report("compiling the interpreter", 1, 3, 0.3, 17.0, 93.0),
    Report("freezing", 2, 3, 0.9, 100.0, None),
    Report("freezing", 3, 3, 1.0, 112.0, 0.0),
]


def shown(reports, *, terminal):
    text = io.StringIO()
    progress = ConsoleProgress(Console(file=text, force_terminal=terminal, width=100))
    with progress:
        for report in reports:
            progress(report)
    return text.getvalue()


def test_a_log_gets_the_announcement_and_a_line_a_step():
    assert shown(BUILD, terminal=False).splitlines() == [
        announcement(110.0),
        "image: step 1/3: rewriting the interpreter (0 s so far, about 1 min 50 s left)",
        "image: step 2/3: compiling the interpreter (1 s so far, about 1 min 49 s left)",
        "image: step 2/3: compiling the interpreter (17 s so far, about 1 min 33 s left)",
        "image: step 3/3: freezing (1 min 40 s so far)",
        "image: ready after 1 min 52 s",
    ]


def test_a_log_has_no_control_characters():
    assert "\x1b" not in shown(BUILD, terminal=False)


def test_a_terminal_gets_the_announcement_first_and_its_cursor_back():
    text = shown(BUILD, terminal=True)
    assert text.startswith("Building the sandbox image: about 0.7 GB")
    assert text.rstrip().endswith("image: ready after 1 min 52 s")
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def build_that_fails(console):
    with ConsoleProgress(console) as progress:
        progress(BUILD[1])
        raise ZeroDivisionError


def test_a_build_that_fails_gives_the_cursor_back_and_is_not_called_ready():
    text = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        build_that_fails(Console(file=text, force_terminal=True))
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")
    assert "image: ready" not in text.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_end_of_the_block_says_ready_if_no_report_did(terminal):
    assert shown(BUILD[:-1], terminal=terminal).rstrip().endswith("image: ready after 1 min 40 s")


def test_nothing_is_drawn_without_a_report():
    assert shown([], terminal=True) == ""


def test_the_announcement_says_what_a_first_build_takes():
    assert announcement(None) == announcement(110.0)
    assert announcement(None).startswith(
        "Building the sandbox image: about 0.7 GB of disk and two minutes, once (0.3 GB of it is installed already)."
    )


def test_a_quick_build_does_not_announce_two_minutes():
    assert announcement(8.0) == (
        "Building a sandbox image from native code that is there already: 8 s, once."
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (112.0, "1 min 52 s")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def building_workers(fake_workers):
    """Opens fake workers as if each had to build its image first."""

    @asynccontextmanager
    async def build_and_open(config, snapshots, *, progress=None):
        for report in BUILD:
            progress(report)
        async with fake_workers(config, snapshots) as worker:
            yield worker

    return build_and_open


def test_an_engine_shows_the_build_on_standard_error(building_workers, capsys):
    evocell.Engine(evocell.Config(), open_worker=building_workers).close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == announcement(110.0)
    assert captured.err.splitlines()[-1] == "image: ready after 1 min 52 s"


@pytest.mark.trio
async def test_so_does_an_async_one(building_workers, capsys):
    async with evocell.AsyncEngine(evocell.Config(), open_worker=building_workers):
        assert capsys.readouterr().err.startswith(announcement(110.0))


def test_silent_shows_nothing(building_workers, capsys):
    evocell.Engine(evocell.Config(), progress=evocell.silent, open_worker=building_workers).close()
    assert capsys.readouterr() == ("", "")


def test_a_function_of_ones_own_gets_every_report(building_workers, capsys):
    seen = []
    evocell.Engine(evocell.Config(), progress=seen.append, open_worker=building_workers).close()
    assert seen == BUILD
    assert capsys.readouterr() == ("", "")


def test_an_engine_whose_image_is_there_shows_nothing(fake_workers, capsys):
    evocell.Engine(evocell.Config(), open_worker=fake_workers).close()
    assert capsys.readouterr() == ("", "")


def test_a_start_that_shows_nothing_does_not_load_the_display():
    program = "import sys, evocell; print([name for name in sys.modules if name.startswith('rich')])"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"
