"""`evocell bench` on real programs, and what it says of files it cannot use."""

import json

import pytest

from evocell.cli.bench import read_cases
from evocell.cli.main import main
from evocell.errors import ConfigurationError

SLOW = "def total(n):\n    result = 0\n    for i in range(n):\n        result += i\n    return result"
FAST = "def total(n): return n * (n - 1) // 2"


@pytest.fixture
def programs(tmp_path):
    paths = [tmp_path / "slow.py", tmp_path / "fast.py"]
    for path, source in zip(paths, (SLOW, FAST), strict=True):
        path.write_text(source)
    return [str(path) for path in paths]


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.json"
    path.write_text(
        json.dumps([{"args": [5], "expected": 10, "name": "five"}, {"args": [4000], "expected": 7998000}])
    )
    return str(path)


def test_one_program(programs, cases, capsys):
    assert main(["bench", programs[0], "--entry", "total", "--cases", cases, "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 cases" in out
    assert "five" in out
    assert "passed" in out
    assert "for the calls themselves" in out


def test_two_programs(programs, cases, capsys):
    assert main(["bench", *programs, "--entry", "total", "--cases", cases, "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert "by fuel:" in out
    assert "fast.py is better (exact: the same on every run)" in " ".join(out.split())
    assert "by time: undecided (2 repeats bound nothing; six are the least)" in out


def test_json(programs, cases, capsys):
    command = ["bench", *programs, "--entry", "total", "--cases", cases, "--repeats", "1", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["by_fuel"] == "second"
    assert first["fuel_ratio"] == second["fuel_ratio"] < 1
    assert [case["passed"] for case in first["first"]["cases"]] == [True, True]


def test_a_wrong_answer_is_said_and_is_the_exit_code(programs, tmp_path, capsys):
    path = tmp_path / "cases.json"
    path.write_text('[{"args": [5], "expected": 11}]')
    assert main(["bench", programs[1], "--entry", "total", "--cases", str(path), "--repeats", "1"]) == 1
    assert "not what was expected: case 0" in capsys.readouterr().out


def test_a_program_that_cannot_be_read(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "none.py"), "--entry", "f"]) == 2
    assert "none.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a list of cases"),
        ("[3]", r"cases\.json\[0\] must be a list of arguments"),
        ('[[1], {"arg": 1}]', r"cases\.json\[1\] has the key 'arg'; there are args, kwargs"),
        ('[{"args": 3}]', r"cases\.json\[0\]: case args must be"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_files_that_hold_no_cases(tmp_path, text, why):
    path = tmp_path / "cases.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        read_cases(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_cases(tmp_path / "none.json")
