"""docs/pipe.md says what the code does; these fail when the two part."""

import re
from pathlib import Path

import msgpack
import pytest

from evocell.errors import SandboxNotFound
from evocell.pipe.channel import ReceivedEvent
from evocell.pipe.codec import TypeOptions
from evocell.pipe.description import EXTENSIONS, NOTIFICATIONS, describe
from evocell.pipe.document import refreshed
from evocell.pipe.errors import error_codes
from evocell.pipe.handshake import SERVER_METHODS, Hello
from evocell.pipe.limits import PROTOCOL, PipeLimits
from evocell.pipe.machine import Greeted, Machine, RequestReceived
from evocell.pipe.methods import engine_methods
from evocell.telemetry.stream import KEPT

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "pipe.md").read_text(encoding="utf-8")


def section(title):
    return re.split(r"\n#{2,3} ", PAGE.split(f"# {title}\n", 1)[1])[0]


def first_column(text):
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_the_tables_are_those_of_the_code():
    assert refreshed(PAGE) == PAGE, "run: python -m evocell.pipe.document"


def test_a_changed_limit_would_be_noticed():
    assert refreshed(PAGE.replace("| `max_in_flight` | 1,024 |", "| `max_in_flight` | 1,000 |")) == PAGE


def test_every_part_of_the_protocol_has_its_line():
    for name in [*SERVER_METHODS, *NOTIFICATIONS, *error_codes(), *PROTOCOL_WORDS]:
        assert f"`{name}`" in PAGE, name
    for name in engine_methods():
        assert f"#### `{name}` →" in PAGE, name
    for name in describe()["models"]:
        assert f"#### {name}\n" in PAGE, name


PROTOCOL_WORDS = ["msgid", "params", "stall_s", "namespace", "detach", "attach"]


def test_the_hand_written_facts():
    assert f"Protocol version: {PROTOCOL}." in PAGE
    assert first_column(section("Handshake")) == [field.name for field in Hello.__attrs_attrs__]
    assert "It has 10 seconds" in PAGE
    assert PipeLimits().hello_s == 10
    assert first_column(section("Functions of the client")) == [
        "score",
        "aggregate",
        "stop",
        "keep",
        "fitness",
        "progress",
    ]
    assert first_column(section("Values"))[:3] == [field.name for field in TypeOptions.__attrs_attrs__]
    assert set(re.findall(r'"(\w+)"', re.search(r"An event is `(.*?)`", section("Events"))[1])) == {
        field.name for field in ReceivedEvent.__attrs_attrs__
    }
    assert sorted(map(int, re.findall(r"^\| (\d) \|", section("Values"), re.MULTILINE))) == sorted(EXTENSIONS)
    assert f"The server keeps the latest {KEPT:,}, and `max_queued_events`" in PAGE


def bytes_of(line):
    """The bytes that a line of the listing shows, as far as it shows them."""
    return bytes.fromhex(line.split(None, 1)[1].replace("…", ""))


def test_the_listing_is_what_is_sent():
    lines = [
        line
        for line in section("A connection, byte by byte").splitlines()
        if line.startswith(("client", "server"))
    ]
    hello, welcome, asked, refused = map(bytes_of, lines)
    machine = Machine("server")

    (greeted,) = machine.receive(hello)
    assert greeted == Greeted(0, {"protocol": 1})
    result = {"protocol": 1, "server": "", "session": {}, "image": {}, "limits": {}, "types": {}}
    assert machine.accept(0, result, TypeOptions()).startswith(welcome)
    assert list(machine.receive(asked)) == [RequestReceived(1, "get_info", {"id": "x"})]
    assert machine.fail(1, SandboxNotFound("x")).startswith(refused)


@pytest.mark.parametrize(
    "block", re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL), ids=lambda block: block[:20]
)
def test_the_examples_use_names_that_there_are(block):
    named = re.findall(r"\[0, \d+, \"(\w+)\"|\[2, \"([\w.]+)\"", block)
    for request, notification in named:
        if request:
            assert request in engine_methods() or request in SERVER_METHODS or request == "call"
        else:
            assert notification in NOTIFICATIONS


def test_the_messages_of_the_table_are_those_of_the_specification():
    assert "`[0, msgid, method, [params]]`" in PAGE
    assert msgpack.unpackb(Machine("client").request("hello", {})[1]) == [0, 1, "hello", [{}]]


def test_every_argument_has_a_type_and_a_meaning():
    """`value` is for what sandboxed functions take; elsewhere it would be an annotation that says nothing."""
    for name, method in describe()["methods"].items():
        for argument, about in method["arguments"].items():
            assert about["meaning"], (name, argument)
            assert about["type"] != "value", (name, argument)
