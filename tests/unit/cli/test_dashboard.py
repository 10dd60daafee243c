"""`evocell dashboard`: what it tells, to whom, and that it neither writes nor leaves anything."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import pytest

from evocell import Case, Config, Engine, Evaluation
from evocell.cli.main import main
from evocell.errors import ConfigurationError
from evocell.page import server as server_module
from evocell.page.following import Following, parse_view
from evocell.page.html import render, security_policy
from evocell.page.server import open_server

TOKEN = "the-token-of-this-test"
HOSTILE = "</script><img src=x onerror=alert(1)>"
TASK = Evaluation("f", [Case(())], lambda case, value: float(value))


@pytest.fixture
def engine(fake_workers, tmp_path):
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as made:
        made.evaluate(
            ["def f(): return 1", f"def f(): raise KeyError({HOSTILE!r})"], TASK, population=HOSTILE
        )
        yield made


@pytest.fixture
def following(engine, tmp_path):
    with closing(Following(tmp_path / "evocell.db")) as made:
        yield made


@contextmanager
def serving(answers):
    page = render({"live": True, "title": HOSTILE}, live=True), security_policy(live=True)
    with open_server(0, TOKEN, page, answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(following):
    answers = {"views": lambda _: following.views(), "data": following.data, "member": following.member}
    with serving(answers) as made:
        yield made


def send(server, request, *, host=True):
    """Return status, headers and body of what the server says to some bytes."""
    if host:
        request = request.replace(b"\r\n", b"\r\nHost: 127.0.0.1:%d\r\n" % server.server_port, 1)
    with socket.create_connection(server.server_address) as connection:
        connection.sendall(request)
        said = b""
        while part := connection.recv(1 << 16):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body.decode()


def get(server, what, wanted=None, **more):
    query = f"?{urlencode(wanted)}" if wanted else ""
    return send(server, f"GET /{TOKEN}/{what}{query} HTTP/1.1\r\n\r\n".encode(), **more)


def ask(server, what, wanted=None):
    status, _, body = get(server, what, wanted)
    assert status == 200, body
    return json.loads(body)


def test_whoever_knows_the_token_gets_the_page_and_nothing_from_elsewhere(server):
    status, headers, body = get(server, "")
    assert status == 200
    assert HOSTILE not in body
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "http" not in body.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /wrong/ HTTP/1.1", 404),
        (b"GET /the-token-of-this-tes/ HTTP/1.1", 404),
        (b"GET /the-token-of-this-test HTTP/1.1", 404),
        (b"GET /the-token-of-this-test/nothing HTTP/1.1", 404),
        (b"GET /the-token-of-this-test/../../etc/passwd HTTP/1.1", 404),
        (b"GET \xff\xfe HTTP/1.1", 404),
        (b"POST /the-token-of-this-test/data HTTP/1.1", 501),
        (b"HEAD /the-token-of-this-test/ HTTP/1.1", 501),
        (b"<img src=x> / HTTP/1.1", 400),
        (b"GET /the-token-of-this-test/ HTTP/9.9", 505),
        (b"GET /the-token-of-this-test/data?" + b"&".join(b"a%d=1" % n for n in range(40)) + b" HTTP/1.1", 400),
        (b"GET /the-token-of-this-test/member?view=nothing HTTP/1.1", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1", 431),
    ],
)  # fmt: skip
def test_everybody_else_gets_a_sentence(server, request_line, status):
    found, headers, body = send(server, request_line + b"\r\n\r\n")
    assert found == status
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "<" not in body
    assert TOKEN not in body


@pytest.mark.parametrize(
    "hosts",
    [b"", b"Host: evil.example\r\n", b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1:1\r\n", b"two"],
)
def test_a_name_that_points_here_is_not_served(server, hosts):
    if hosts == b"two":
        hosts = b"Host: evil.example\r\nHost: 127.0.0.1:%d\r\n" % server.server_port
    request = b"GET /%s/ HTTP/1.1\r\n%s\r\n" % (TOKEN.encode(), hosts)
    assert send(server, request, host=False)[0] == 421
    local = b"GET /%s/ HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (TOKEN.encode(), server.server_port)
    assert send(server, local, host=False)[0] == 200


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/{TOKEN}/"


def test_headers_and_connections_are_bounded(server, monkeypatch):
    many = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 400) for n in range(90))
    assert send(server, b"GET / HTTP/1.1\r\n" + many + b"\r\n")[0] == 431
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    idle = [socket.create_connection(server.server_address) for _ in range(3)]
    try:
        end = time.monotonic() + 20
        while len(server._open) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        with socket.create_connection(server.server_address) as refused:
            assert refused.recv(1) == b""
        monkeypatch.setattr(server_module, "MAX_AGE_S", 0.0)  # and the ones that say nothing are closed
        for one in idle:
            assert one.recv(1) == b""
    finally:
        for one in idle:
            one.close()
    monkeypatch.undo()
    assert get(server, "")[0] == 200


def test_a_fault_of_ours_is_said_on_the_terminal_and_not_to_the_client(caplog):
    def fail(_):
        raise ZeroDivisionError(TOKEN)

    with serving({"data": fail}) as server:
        status, _, body = get(server, "data")
    assert status == 500
    assert TOKEN not in body
    assert "could not answer" in caplog.text


def test_it_tells_only_what_is_new(engine, server):
    first = ask(server, "data", {"points": 1})
    assert first["head"]["n_individuals"] == 2
    assert first["head"]["outcome"] == "open"
    assert set(first["points"]["score"]) == {1.0, None}
    known = {"points": 1, "epoch": first["epoch"], "cursor": first["cursor"], "revision": first["revision"]}
    known["tree"] = first["tree"]["tag"]
    again = ask(server, "data", known)
    assert (again["columns"], again["points"]["id"]) == ([], [])
    assert "tree" not in again
    engine.evaluate(["def f(): return 7"], TASK, population=HOSTILE)
    later = ask(server, "data", known)
    assert later["points"]["score"] == [7.0]
    assert later["head"]["leaders"][0]["score"] == 7.0
    assert [one["score"] for one in later["tree"]["members"] if one["in_tree"]] == [7.0]
    place = first["points"]["score"].index(1.0)
    engine.fitness.adjust(first["points"]["id"][place], 20.0, "elegant")
    end = time.monotonic() + 20  # adjustments are written in passing
    while ask(server, "data", known)["head"]["leaders"][0]["score"] != 21.0:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_member_is_told_with_its_source_and_a_view_by_its_name(server):
    views = ask(server, "views")["views"]
    assert [one["view"] for one in views] == ["search", f"population:{HOSTILE}", "run:1"]
    for view in views:
        told = ask(server, "data", {"view": view["view"], "points": 1})
        assert told["head"]["n_evaluations"] == 2
    number = told["points"]["number"][told["points"]["score"].index(None)]
    member = ask(server, "member", {"number": number})["member"]
    assert HOSTILE in member["source"]
    assert member["reason"] == "raised"
    assert ask(server, "member", {"number": 12345})["member"] is None
    assert "no run 9" in ask(server, "data", {"view": "run:9"})["problem"]
    assert "no population" in ask(server, "data", {"view": "population:x"})["problem"]


@pytest.mark.parametrize(
    "view", ["", "run:", "run:-1", "run:1e9", "run:" + "9" * 30, "population:", "nothing"]
)
def test_what_is_no_view_is_refused(view):
    with pytest.raises(ConfigurationError, match="a view is"):
        parse_view(view)


def test_a_later_run_takes_over_unless_one_was_chosen(fake_workers, tmp_path):
    for population, n_individuals in (("a", 1), ("a", 2), ("b", 1)):
        with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
            engine.evaluate(["def f(): return 1"] * n_individuals, TASK, population=population)
        if population == "a" and n_individuals == 1:
            following = Following(tmp_path / "evocell.db")
        counts = {
            view: json.loads(following.data({"view": view}))["head"]["n_evaluations"]
            for view in ("search", "all", "run:1")
        }
        engines = {1: (1, 1, 1), 2: (3, 3, 1)}.get(n_individuals) if population == "a" else (1, 4, 1)
        assert tuple(counts.values()) == engines
    following.close()


def test_nothing_evaluated_yet_is_a_sentence_until_there_is_something(fake_workers, tmp_path):
    with (
        Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine,
        closing(Following(tmp_path / "evocell.db")) as following,
    ):
        assert "nothing has been evaluated" in json.loads(following.data({}))["problem"]
        engine.evaluate(["def f(): return 1"], TASK)
        assert json.loads(following.data({}))["head"]["n_evaluations"] == 1


def test_reading_holds_no_transaction_and_no_lock(engine, following, tmp_path):
    for _ in range(3):
        following.data({"points": "1"})
    (followed,) = following._followed.values()
    assert not followed._connection.in_transaction
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        followed._connection.execute("DELETE FROM runs")
    engine.evaluate(["def f(): return 2"], TASK)
    with closing(sqlite3.connect(tmp_path / "evocell.db", isolation_level=None)) as writer:
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0  # nobody is in the way


def test_views_that_nobody_looks_at_are_closed(engine, following):
    for n in range(20):
        following.data({"view": f"population:{n}"})
    following.data({})
    assert len(following._followed) <= 6


def test_a_port_that_is_taken_is_a_sentence(engine, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", str(tmp_path), "--no-open", "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 cannot be had" in capsys.readouterr().err
    assert main(["dashboard", str(tmp_path / "nowhere"), "--no-open"]) == 2
    with pytest.raises(SystemExit):
        main(["dashboard", str(tmp_path), "--port", "70000"])
    assert "is not a port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_command_serves_until_it_is_ended_and_leaves_nothing(engine, tmp_path, number):
    before = sorted(path.name for path in tmp_path.iterdir())
    command = [sys.executable, "-m", "evocell", "dashboard", str(tmp_path), "--no-open"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address = process.stdout.readline().strip()
        host, token = address.removeprefix("http://").rstrip("/").split("/")
        port = int(host.split(":")[1])
        with socket.create_connection(("127.0.0.1", port)) as idle:  # a connection that says nothing
            with socket.create_connection(("127.0.0.1", port)) as asking:
                asking.sendall(f"GET /{token}/data HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert asking.recv(1 << 16).startswith(b"HTTP/1.0 200")
            process.send_signal(number)
            assert process.wait(30) == 0
            assert idle.recv(1) == b""
        assert "Traceback" not in process.stderr.read()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
