"""Cells of a CSV export are text and numbers, whatever a candidate wrote."""

import csv
import io
import json

import pytest

from evocell.store.export import write_rows


def written(row, file_format="csv"):
    parts = []
    assert write_rows(iter([row]), file_format, parts.append) == 1
    return b"".join(parts).decode()


def cell(value):
    (row,) = csv.DictReader(io.StringIO(written({"x": value}), newline=""))
    return row["x"]


@pytest.mark.parametrize(
    "first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
)
@pytest.mark.parametrize("before", ["", " ", "  ", "\ufeff", "\u200b", "\x00", "\xa0", "\x1b"])
@pytest.mark.parametrize(
    "rest", ["1+1", "cmd|' /C calc'!A0", 'HYPERLINK("http://x","y")', "", "1e5x", "1.2.3", " 1"]
)
def test_formulas_are_text(first, before, rest):
    if not (before + first + rest).strip() and not before + first:
        return
    assert cell(before + first + rest).startswith("'")


@pytest.mark.parametrize("number", [0, -1, 1.5, -1.5, -1e300, 10**40, -(2**63), float("-inf")])
def test_numbers_stay_numbers(number):
    assert cell(number) == str(number)
    assert cell(str(number)) == str(number) or number == float("-inf")


@pytest.mark.parametrize("text", ["", "a=b", "plain", "1-2", "'=x", " a", "(=)", "é=1"])
def test_other_text_is_left_alone(text):
    assert cell(text) == text


def test_packed_columns_and_flags():
    assert cell(["=1", {"-": 2}]) == '["=1", {"-": 2}]'
    assert (cell(True), cell(None)) == ("true", "")


def test_json_lines_have_nothing_unprintable():
    row = {"x": "\x1b\x9b\u202e\u2028\x7f\ud800é\U000e0001", "\x07": [1]}
    line = written(row, "jsonl")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert json.loads(line) == row
