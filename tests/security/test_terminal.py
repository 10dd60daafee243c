"""No terminal code that a variant, a file or a store holds reaches a terminal, by whatever command."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tests.security.terminal import Forker, environment, seen_on, start_fresh

import evocell
from evocell.cli import main as main_module
from evocell.execution.archive import Archive, write_archive
from evocell.models.foreign import clean, clean_json, clean_line, clean_message
from evocell_runtime.cache import ImageCache
from evocell_runtime.portable import snapshot_abi
from evocell_runtime.spec import ImageSpec

CODES = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x9d0;OWNED\x9c\r\x08\x0b\x0c\u202eabc\u2066def\u2069\u200f\u2028[red]x[/red][link=http://owned]y[/link]:skull:"
"""OSC, CSI, BEL, C1, CR, BS, VT, FF, bidi overrides and isolates, a line separator, markup."""

MARKUP = "[red]OWNED[/red][link=http://owned]y[/link]:skull:"
"""What may be an id."""

NAME = CODES.replace("/", "-")
"""The same as a file's name."""

FORBIDDEN = re.compile(
    r"\x1b\]|\x1b\[2J|\x07|[\x80-\x9f]|\x08|\x0b|\x0c|[\u200e\u200f\u2028-\u202e\u2066-\u2069]|💀"
)
STRICT = re.compile(FORBIDDEN.pattern + r"|\x1b|\r(?!\n)")
"""Without a terminal type that has codes, none comes from ourselves either."""

ENGINE = Path(main_module.__file__).parents[1]


@pytest.fixture(scope="module")
def forker():
    made = Forker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def on_terminal(forker):
    """Runs a command on a pseudo-terminal, in a new interpreter if that is asked for, and returns what reached it."""

    def run(*words, term="dumb", env=(), until=None, talk=None, fresh=False, before=""):
        start = start_fresh if fresh else partial(forker.start, before=before)
        terminal, tty = pty.openpty()
        pid = start([*map(str, words)], environment(term, env), "/", tty)
        os.close(tty)
        try:
            return seen_on(terminal, pid, until=until, talk=talk)
        finally:
            os.close(terminal)
            if fresh:
                os.waitpid(pid, 0)

    return run


def check(text, *, term="dumb", shows="OWNED"):
    pattern = STRICT if term == "dumb" else FORBIDDEN
    found = pattern.search(text)
    assert found is None, ascii(text[max(0, found.start() - 200) : found.end() + 100])
    assert shows in text, ascii(text)


SOURCE = f"def f(x=1):\n    raise ValueError({CODES!r})\n"


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state directory that an engine wrote, with codes wherever a caller or a variant may put some."""
    root = tmp_path_factory.mktemp("state") / "state"
    config = evocell.Config.load(workers=1, state_dir=root, event_log=True)
    cases = [evocell.Case((1,), expected=1, name=CODES), evocell.Case(("x",), expected=CODES)]
    with evocell.Engine(config) as engine:
        task = evocell.Evaluation("f", cases)
        programs = [
            SOURCE,
            f"def f(x):\n  print({CODES!r})\n  return {CODES!r}",
            f"{CODES}",
            "import socket\ndef f(x): pass",
        ]
        engine.evaluate(programs, task, population=MARKUP)
        engine.evaluate(
            ["def f(x): return x"],
            evocell.Evaluation("f", cases, lambda case, value: {CODES: 1.0, "score": 2.0}),
        )
        sandbox = engine.create_sandbox(id=MARKUP, source=SOURCE, population=MARKUP, mutation_type=MARKUP)
        engine.batch_evaluate([sandbox], task)
        engine.batch_evaluate([sandbox], lambda one: {CODES: float(len(one.id))})
    return root


@pytest.fixture(scope="module")
def tampered(state, tmp_path_factory):
    """The same, with codes in each text of each table."""
    root = tmp_path_factory.mktemp("tampered") / "state"
    shutil.copytree(state, root)
    with sqlite3.connect(root / "evocell.db") as base:
        tables = [row[0] for row in base.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in base.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.upper() != "TEXT" or table.startswith("sqlite"):
                    continue
                try:
                    base.execute(f"UPDATE {table} SET {column} = ? || coalesce({column}, '')", (CODES,))
                except sqlite3.IntegrityError:
                    continue
    base.close()
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with an image whose manifest and name hold codes."""
    source = ImageCache()
    manifest = source.get(ImageSpec())
    own = ImageCache(tmp_path_factory.mktemp("cache") / "cache")
    own.prepare()
    link = {"copy_function": lambda a, b: Path(b).hardlink_to(a)}
    shutil.copytree(source.image_dir(manifest.image_id), own.image_dir(manifest.image_id), **link)
    shutil.copytree(source.code_dir(manifest.code_key), own.code_dir(manifest.code_key), **link)
    path = own.image_dir(manifest.image_id) / "manifest.json"
    facts = json.loads(path.read_text())
    for name in ("created", "wasmtime", "python", "cpu", "parent", "version"):
        facts[name] = CODES
    facts["layers"] = facts["warm"] = [CODES, "[bold]OWNED"]
    facts["files"] = {NAME: {"size": 1, "sha256": CODES}, **facts["files"]}
    path.unlink()
    path.write_text(json.dumps(facts))
    return own.root


FEW_PROGRAMS = """
from evocell.cli import verify_determinism
few = verify_determinism.programs()[:4]
verify_determinism.programs = lambda: few
"""

TERMS = ("dumb", "xterm-256color")


@pytest.mark.parametrize(
    "table", ["runs", "sandboxes", "evaluations", "adjustments", "lineage", "batches", "sources"]
)
@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_store_export(on_terminal, state, tampered, table, file_format):
    for root in (state, tampered):
        honest = root == state and table in {"sandboxes", "evaluations", "sources"}
        text = on_terminal("store", "export", root, "--table", table, "--format", file_format)
        check(text, shows="OWNED" if honest else "")


def test_store_export_of_bytes_is_nothing_for_a_terminal(on_terminal, state):
    for options in ((), ("--out", "/dev/tty")):
        check(
            on_terminal("store", "export", state, "--format", "msgpack", *options),
            shows="msgpack is nothing for a terminal",
        )


def test_store_export_keeps_data_as_they_are(on_terminal, state):
    command = [sys.executable, "-m", "evocell", "store", "export", state]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert CODES[:8].encode() in done.stdout
    check(on_terminal("store", "export", state, "--out", "/dev/tty"))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(
    "words",
    [
        ("store", "check"),
        ("audit",),
        ("audit", "--json"),
        ("top", "--once"),
        ("replay", "--workers", "0"),
        ("replay", "--workers", "0", "--json"),
        ("report", "--out", "/dev/null"),
    ],
    ids=" ".join,
)
def test_commands_on_a_state_directory(on_terminal, state, tampered, words, term):
    command, *options = words[:2] if words[0] == "store" else words
    options = [*options, *([] if words[0] != "store" else words[2:])]
    for root in (state, tampered) if term == "dumb" else (state,):
        given = [command, *options, root] if command == "store" else [command, root, *options]
        check(on_terminal(*given, term=term), term=term, shows="")


def test_the_dashboard(on_terminal, state):
    shown = on_terminal("dashboard", state, "--no-open", until=b"ends it", fresh=True)
    check(shown, shows="the page follows the run")


@pytest.mark.parametrize("term", TERMS)
def test_top_live(on_terminal, state, term):
    check(
        on_terminal("top", state, "--interval", "0.1", term=term, until=b"sandboxes", fresh=term == "dumb"),
        term=term,
        shows="sandboxes",
    )


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("list", "--json"),
        ("show",),
        ("show", "--json"),
        ("verify",),
        ("remove", NAME),
        ("show", NAME),
    ],
    ids=lambda words: " ".join(words)[:12].encode("ascii", "replace").decode(),
)
@pytest.mark.parametrize("term", TERMS)
def test_image_commands(on_terminal, cache, words, term):
    check(
        on_terminal("image", words[0], "--cache-dir", cache, *words[1:], term=term),
        term=term,
        shows="" if words[0] == "list" else "OWNED",
    )


def parcels():
    abi = {"abi": snapshot_abi(), "root": {"root/x": "0"}}
    yield Archive("image", {**abi, "layers": [CODES]}, {})
    yield Archive("image", {**abi, "layers": CODES}, {})
    yield Archive("image", {**abi, "root": {CODES: CODES}, "layers": []}, {})
    yield Archive("image", {**abi, "abi": CODES}, {})
    yield Archive(CODES, {}, {})
    yield Archive("image", {CODES: CODES}, {})
    yield Archive("image", {**abi, "layers": []}, {CODES: b"x"})
    yield Archive("sandbox", {"id": CODES}, {})


@pytest.mark.parametrize("number", range(8))
def test_image_import(on_terminal, tmp_path, number):
    file = tmp_path / NAME
    write_archive(file, list(parcels())[number])
    check(on_terminal("image", "import", file, "--name", CODES), shows="evocell: ")


def test_image_export_and_build(on_terminal, cache, tmp_path):
    check(on_terminal("image", "export", "--cache-dir", cache, CODES, tmp_path / "x"))
    check(on_terminal("image", "build", "--cache-dir", tmp_path / NAME, "--layer", tmp_path / NAME))
    layer = tmp_path / "layer.zip"
    layer.write_text(CODES)
    check(on_terminal("image", "build", "--layer", layer), shows="evocell: ")


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_bench(on_terminal, tmp_path, term, options):
    program = tmp_path / (NAME + ".py")
    program.write_text(SOURCE)
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([{"args": [1], "expected": 2, "name": CODES}]))
    words = ("--entry", "f", "--repeats", "2", "--cases", cases, *options)
    check(on_terminal("bench", program, *words, term=term), term=term)
    check(on_terminal("bench", program, program, *words, term=term), term=term)
    right = tmp_path / "right.py"
    right.write_text("def f(x): return 3")
    check(on_terminal("bench", right, *words, term=term), term=term)


def test_bench_with_bad_files(on_terminal, tmp_path):
    cases = tmp_path / NAME
    for text in (CODES, json.dumps([{CODES: 1}]), json.dumps([CODES]), json.dumps({CODES: CODES})):
        cases.write_text(text)
        check(on_terminal("bench", cases, "--entry", "f", "--cases", cases), shows="evocell: ")
    check(on_terminal("bench", cases, "--entry", CODES))


def test_layers(on_terminal, tmp_path):
    wanted = tmp_path / NAME
    for text in (
        f"{CODES}\n",
        f"-r {CODES}\n",
        f"./{NAME}.whl\n",
        f"requests=={CODES}\n",
        f"--index-url {CODES}\n",
    ):
        wanted.write_text(text)
        check(
            on_terminal("layer", "build", wanted, "-o", tmp_path / "out.zip", env={"PIP_NO_INDEX": "1"}),
            shows="evocell: ",
        )
    check(on_terminal("layer", "packages"), shows="numpy")


def test_doctor_and_settings(on_terminal, tmp_path):
    for setting in ("CACHE_DIR", "STATE_DIR", "WORKERS", "PROFILE", "WARM", "LAYERS", "CONFIG"):
        env = {f"EVOCELL_{setting}": str(tmp_path / NAME)}
        check(on_terminal("doctor", *(["--json"] if setting == "CACHE_DIR" else []), env=env), shows="")
    config = tmp_path / "evocell.toml"
    for text in (
        CODES,
        f'"{CODES}" = 1',
        '"\\u001b]0;OWNED\\u0007" = 1',
        'profile = "\\u001b]0;OWNED\\u0007\\u202e"',
    ):
        config.write_text(text)
        check(on_terminal("doctor", env={"EVOCELL_CONFIG": str(config)}), shows="")


def test_verify_determinism(on_terminal, tmp_path):
    kept = tmp_path / NAME
    for text in (CODES, json.dumps({"outcomes": {CODES: CODES}}), json.dumps({"outcomes": CODES})):
        kept.write_text(text)
        check(on_terminal("verify-determinism", "--against", kept), shows="evocell: ")


def test_verify_determinism_against_another_machine(on_terminal, tmp_path):
    term = "xterm-256color"
    kept = tmp_path / NAME
    finding = {"kind": CODES, "outcome": CODES, "fuel_used": 1}
    kept.write_text(json.dumps({"outcomes": {CODES: finding, "[red]": finding}}))
    words = ("verify-determinism", "--against", kept, "--runs", "1", "--workers", "0")
    text = on_terminal(*words, term=term, before=FEW_PROGRAMS)
    check(text, term=term)


@pytest.mark.parametrize("term", TERMS)
def test_demo(on_terminal, tmp_path, term):
    out = tmp_path / NAME
    text = on_terminal("demo", "--generations", "1", "--population", "6", "--report", out, term=term)
    check(text, term=term)


def test_serve(on_terminal, tmp_path):
    place = tmp_path / "s\x1b]0;OWNED\x07\x9b\u202e"

    def talk():
        for data in (CODES.encode(), b"\x94\x00\x01\xb8" + CODES.encode()[:24] + b"\x90", b"\xff" * 100):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(2)
                client.connect(str(place))
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                with pytest.MonkeyPatch.context():
                    try:
                        while client.recv(65536):
                            pass
                    except OSError:
                        pass

    check(on_terminal("serve", "--unix", place, "--workers", "0", until=b"Ctrl-C", talk=talk, fresh=True))
    check(on_terminal("serve", "--tcp", CODES, "--token-file", tmp_path / NAME))


def test_arguments_that_are_none(on_terminal):
    for words in (
        (CODES,),
        ("demo", "--seed", CODES),
        ("store", "export", "--table", CODES),
        ("top", CODES),
        ("dashboard", CODES),
        ("audit", "--since", CODES),
    ):
        check(on_terminal(*words))


@pytest.mark.parametrize(
    "words",
    [(CODES,), ("store", "export"), ("store", "check"), ("report", "--out", "/dev/null")],
    ids=range(4),
)
def test_a_forked_command_says_what_a_fresh_one_says(on_terminal, state, words):
    given = [*words, state] if words[0] != "report" else ["report", state, *words[1:]]
    forked, fresh = (on_terminal(*given, term=TERMS[1], fresh=fresh) for fresh in (False, True))
    check(fresh, term=TERMS[1], shows="")
    assert forked == fresh != ""


def test_every_command_is_tried_here():
    parser = main_module.build_parser()
    (commands,) = [action for action in parser._actions if hasattr(action, "choices") and action.choices]
    text = Path(__file__).read_text(encoding="utf-8")
    for name in commands.choices:
        assert f'"{name}"' in text, name


def test_faults_of_our_own_are_cleaned(monkeypatch, capsys):
    from evocell.models.foreign import clean_traces

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    clean_traces()
    error = ValueError(CODES)
    sys.excepthook(type(error), error, None)
    check(capsys.readouterr().err.replace("\n", "\r\n"))


def test_nothing_of_the_command_line_goes_around_its_screen():
    for path in [*(ENGINE / "cli").rglob("*.py"), *(ENGINE / "api").glob("*rogress.py")]:
        if path.name == "screen.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            said = ast.unparse(node.func)
            assert said not in {"print", "Console", "sys.stdout.write", "sys.stderr.write"}, (
                path,
                node.lineno,
                said,
            )


@pytest.mark.parametrize(
    "code",
    [
        *range(32),
        127,
        *range(0x80, 0xA0),
        0x200B,
        0x200E,
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        0xD800,
        0xE0001,
        0xFEFF,
    ],
)
def test_each_code(code):
    char = chr(code)
    kept = char if char in "\n\t" else "?"
    assert clean(f"a{char}b") == f"a{kept}b"
    assert clean_line(f"a{char}b") == "a?b"
    assert clean_message(f"a{char}b") == f"a{kept}b".replace("\n", "\n  ")
    document = clean_json(json.dumps(f"a{char}b", ensure_ascii=False))
    assert document.isprintable()
    assert json.loads(document) == f"a{char}b"
