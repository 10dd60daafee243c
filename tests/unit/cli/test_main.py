"""The command itself: parsing, and how errors reach a person."""

import re

import pytest

from evocell.cli import image, main
from evocell.errors import ConfigurationError
from evocell_runtime.errors import ImageError as RuntimeImageError


def failing_with(error):
    def run(*_):
        raise error

    return run


def test_version_names_the_runtime(capsys):
    with pytest.raises(SystemExit) as left:
        main.main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"evocell \S.* \(wasmtime \d+\.\d+\.\d+\)\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["image"], ["image", "show", "--nonsense"]])
def test_wrong_arguments_are_one_line_and_exit_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main.main(arguments)
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"evocell: [^\n]+; `evocell[^`]* --help` lists what there is\n", captured.err)


@pytest.mark.parametrize("command", ["demo", "image", "doctor"])
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as left:
        main.main([command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: evocell {command}")


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("unknown setting 'wrokers'; did you mean 'workers'?", "wrokers"),
        RuntimeImageError("no room for the image"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_2(monkeypatch, capsys, error):
    monkeypatch.setattr(image, "open_cache", failing_with(error))
    assert main.main(["image", "list"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"evocell: {error}\n")


def test_an_interrupt_is_not_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(image, "open_cache", failing_with(KeyboardInterrupt()))
    assert main.main(["image", "list"]) == 130
    assert capsys.readouterr().err == "evocell: interrupted\n"


def test_anything_else_is_a_bug_and_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(image, "open_cache", failing_with(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main.main(["image", "list"])
