"""The engine through a pipe is the engine: same methods, same results, same errors."""

import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio
from attrs import evolve

import evocell
from evocell.cli.main import main
from evocell.config import Config
from evocell.errors import (
    ConfigurationError,
    EngineClosed,
    SandboxExists,
    SandboxNotFound,
    ScoringError,
    StoreError,
)
from evocell.pipe.blocking import Client
from evocell.pipe.client import AsyncClient, connect_unix
from evocell.pipe.errors import MethodNotFound, Unauthorized
from evocell.pipe.limits import PipeLimits
from evocell.pipe.server import open_server
from evocell.pipe.transports import listen_tcp, listen_unix, read_token, serve_clients, shown_address

SQUARE = "def solve(n): return n * n"
COUNTER = "total = 0\ndef add(n):\n    global total\n    total += n\n    return total"
TASK = evocell.Evaluation("solve", [evocell.Case((n,), expected=n * n) for n in range(3)])


def unnamed(results):
    """Results without the names of the sandboxes, which are counted on."""
    return [evolve(result, sandbox_id="") for result in results]


@pytest.fixture(scope="module")
def spawned():
    """A server of its own, on standard input and output."""
    with Client.spawn("--workers", "1") as client:
        yield client


@pytest.fixture(scope="module")
def beside():
    """The engine in this process, to compare with."""
    with evocell.Engine(Config.load(workers=0)) as engine:
        yield engine


@pytest.fixture(params=["stdio", "packet4"])
def client(request, spawned):
    if request.param == "stdio":
        yield spawned
    else:
        with Client(lambda: AsyncClient.spawn("--workers", "1", framing="packet4")) as made:
            yield made


def test_evaluations_give_what_they_give_in_process(client, beside):
    sources = [
        SQUARE,
        "def solve(n): return 0",
        "def solve(n): return 1/0",
        "def solve(n",
        "def solve(n): return [n]",
    ]
    assert unnamed(client.evaluate(sources, TASK)) == unnamed(beside.evaluate(sources, TASK))


def test_a_generation_is_evaluated_by_an_evaluation_and_by_a_function(client):
    client.batch_create([evocell.SandboxSpec(source=SQUARE, population="squares")])
    (result,) = client.evaluate_generation("squares", TASK)
    assert (result.valid, result.fitness_score) == (True, 1.0)
    (result,) = client.evaluate_generation(
        "squares", lambda sandbox: sandbox.run("solve", args=(4,)).unwrap()
    )
    assert (result.valid, result.fitness_score) == (True, 16.0)
    client.destroy_generation("squares")


def test_sandboxes_live_as_they_do_in_process(client, beside):
    for engine in (client, beside):
        with engine.create_sandbox("counter", source=COUNTER, generation=2, parent_ids=["a", "b"]) as sandbox:
            assert [sandbox.run("add", args=(n,)).unwrap() for n in (2, 3)] == [2, 5]
            assert sandbox.hot_reload_source(SQUARE).ok
            assert engine.run("counter", "solve", args=(4,)).unwrap() == 16
            assert engine.run_with_timeout("counter", "solve", timeout_s=9, args=(4,)).unwrap() == 16
            state = sandbox.get_info()
            assert (state.status, state.generation, state.parent_ids) == ("running", 2, ("a", "b"))
            assert [one.id for one in engine.list_sandboxes()] == ["counter"]
            with pytest.raises(SandboxExists):
                engine.create_sandbox("counter")
        with pytest.raises(SandboxNotFound):
            engine.get_info("counter")


VALUES = [
    None,
    True,
    2**70,
    -1.5,
    "é",
    b"\x00",
    [1, 2],
    (1, (2, "x")),
    {"a": {1, 2}},
    1 + 2j,
    [0.5] * 20,
    {(1, 2): 3},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_are_the_same_at_both_ends(spawned, value):
    with spawned.create_sandbox(source="def same(x): return x") as sandbox:
        back = sandbox.run("same", args=(value,)).unwrap()
        assert back == value
        assert type(back) is type(value)


def test_arrays_travel(spawned):
    with spawned.create_sandbox(source="def double(x): return x * 2") as sandbox:
        back = sandbox.run("double", args=(np.arange(6.0).reshape(2, 3),)).unwrap()
        assert np.array_equal(back, np.arange(6.0).reshape(2, 3) * 2)


def test_every_failure_comes_as_its_outcome(spawned):
    source = "import os\ndef loop():\n    while True: pass\ndef crash(): os._exit(3)\ndef bomb(): bytearray(2**30)\ndef boom(): raise KeyError('k')"
    with spawned.create_sandbox(source=source) as sandbox:
        tight = evocell.Limits(fuel=10**8)
        kinds = [
            sandbox.run(name, limits=tight).kind for name in ("loop", "crash", "bomb", "boom", "nothing")
        ]
    assert kinds == ["fuel", "crashed", "memory", "raised", "load"]


def test_functions_of_the_caller_are_asked_through_the_pipe(spawned, beside):
    def score(case, value):
        return {"score": float(value == case.expected), "size": 1}

    seen = []
    task = evocell.Evaluation(
        "solve",
        TASK.cases,
        score=score,
        aggregate=lambda results: (sum(case.score["score"] for case in results), -1.0),
        stop=lambda results: not results[-1].passed,
        directions=("maximize", "maximize"),
        failure=(0.0, -9.0),
    )
    sources = [SQUARE, "def solve(n): return n"]
    found = spawned.evaluate(sources, task, progress=lambda result, done, total: seen.append((done, total)))
    assert unnamed(found) == unnamed(beside.evaluate(sources, task))
    assert found[0].objectives == (3.0, -1.0)
    assert seen == [(1, 2), (2, 2)]


def test_a_scoring_function_that_raises_is_data_and_a_broken_one_an_exception(spawned):
    def score(case, value):
        if value == 0:
            return 1.0
        raise RuntimeError("no idea")

    task = evocell.Evaluation("solve", [evocell.Case((1,))], score=score)
    good, bad = spawned.evaluate(["def solve(n): return 0", "def solve(n): return 1"], task)
    assert (good.valid, bad.valid, bad.reason) == (True, False, "score")
    assert "no idea" in bad.error
    with pytest.raises(ScoringError, match="no idea"):
        spawned.evaluate(["def solve(n): return 1", "def solve(n): return 2"], task)


def test_fitness_functions_get_a_sandbox_behind_the_pipe(spawned):
    with (
        spawned.create_sandbox("one", source=SQUARE),
        spawned.create_sandbox("two", source="def solve(n): return 1"),
    ):
        found = spawned.batch_evaluate(
            ["one", "two"], lambda sandbox: sandbox.run("solve", args=(3,)).unwrap()
        )
        assert [result.fitness_score for result in found] == [9.0, 1.0]
        assert spawned.get_info("one").fitness == 9.0


def test_results_come_as_they_are_there(spawned):
    found = dict(spawned.as_completed([SQUARE] * 5, TASK))
    assert sorted(found) == list(range(5))
    assert all(result.valid for result in found.values())


def test_an_evaluator_is_made_on_this_side(spawned, beside):
    assert spawned.evaluator(TASK)(SQUARE) == beside.evaluator(TASK)(SQUARE) == (1.0,)


def test_stages(spawned, beside):
    stages = [
        evocell.Stage(TASK, keep=0.5),
        evocell.Stage(TASK, keep=lambda result: result.fitness_score > 0.9),
    ]
    sources = [SQUARE, "def solve(n): return 0", SQUARE]
    found, expected = (engine.evaluate_stages(sources, stages) for engine in (spawned, beside))
    assert [one.kept for one in found] == [one.kept for one in expected] == [True, False, True]
    assert [unnamed(one.results) for one in found] == [unnamed(one.results) for one in expected]


def test_paths_are_read_here_and_not_there(spawned, tmp_path):
    (tmp_path / "program.py").write_text(SQUARE)
    assert spawned.evaluate_one(tmp_path, TASK).valid
    with spawned.create_sandbox(source=tmp_path / "program.py") as sandbox:
        assert sandbox.run("solve", args=(3,)).unwrap() == 9


def test_bad_input_is_refused_by_its_name_and_nothing_is_lost(spawned):
    with pytest.raises(ConfigurationError, match="isolation must be"):
        spawned.run("x", "f", isolation="both")
    with pytest.raises(ConfigurationError, match="cases is empty"):
        evocell.Evaluation("f", [])
    with pytest.raises(TypeError, match="unexpected keyword"):
        spawned.run("x", "f", arg=1)
    spawned.ping()


def test_a_closed_client_says_so():
    client = Client.spawn("--workers", "1")
    client.close()
    with pytest.raises(EngineClosed):
        client.list_sandboxes()


@pytest.mark.trio
async def test_several_clients_share_a_server_and_do_not_see_each_other(tmp_path):
    path = tmp_path / "evocell.sock"
    async with (
        open_server(Config.load(workers=1), max_clients=4) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        assert path.stat().st_mode & 0o777 == 0o600
        async with AsyncClient.unix(path) as one, AsyncClient.unix(path) as two:
            await one.create_sandbox("same", source=COUNTER, population="p")
            await two.create_sandbox("same", source=COUNTER, population="p")
            assert (await one.run("same", "add", args=(5,))).unwrap() == 5
            assert (await two.run("same", "add", args=(7,))).unwrap() == 7
            assert (await one.run("same", "add", args=(5,))).unwrap() == 10
            assert [state.id for state in await two.list_sandboxes(population="p")] == ["same"]
            await one.destroy_sandbox("same")
            assert (await two.run("same", "add", args=(0,))).unwrap() == 7

            # One keeps every slot of the worker busy; the other is served all the same.
            await one.create_sandbox("busy", source="def loop():\n    while True: pass")
            async with trio.open_nursery() as hogs:
                for _ in range(20):
                    hogs.start_soon(lambda: one.run("busy", "loop", isolation="call"))
                await trio.sleep(0.1)
                with trio.fail_after(20):
                    for _ in range(5):
                        assert (await two.run("same", "add", args=(0,))).ok
                hogs.cancel_scope.cancel()
        await until(lambda: not server.session_names)
        assert len(server._guests._worker.host._table) == 0  # no session of theirs is left in the workers
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.mark.trio
async def test_a_detached_session_keeps_its_sandboxes_for_its_owner(tmp_path):
    path = tmp_path / "evocell.sock"
    async with (
        open_server(Config.load(workers=1)) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        async with AsyncClient.unix(path, detach=True) as client:
            key = client.session["key"]
            await client.create_sandbox("kept", source=COUNTER)
            await client.run("kept", "add", args=(3,))
        async with AsyncClient.unix(path, attach=key) as client:
            assert (await client.run("kept", "add", args=(4,))).unwrap() == 7
            await client.shutdown()
        assert server.session_names == []
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_tcp_wants_the_token(tmp_path):
    token_file = tmp_path / "token"
    token = read_token(token_file)
    assert token == read_token(token_file)
    assert token_file.stat().st_mode & 0o777 == 0o600
    async with (
        open_server(Config.load(workers=1)) as server,
        listen_tcp("0") as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: serve_clients(server, listeners, token=token))
        port = int(shown_address(listeners).rpartition(":")[2])
        with pytest.raises(Unauthorized):
            async with AsyncClient.tcp("127.0.0.1", port, token="x" * 30):
                pass
        async with AsyncClient.tcp("127.0.0.1", port, token=token_file) as client:
            assert (await client.evaluate_one(SQUARE, TASK)).valid
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_idle_tcp_connections_keep_no_client_out(tmp_path):
    token = read_token(tmp_path / "token")
    patient = PipeLimits(hello_s=10_000)
    async with (
        open_server(Config.load(workers=1), limits=patient, max_clients=2) as server,
        listen_tcp("0") as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: serve_clients(server, listeners, token=token))
        port = int(shown_address(listeners).rpartition(":")[2])
        async with AsyncClient.tcp("127.0.0.1", port, token=token) as early, AsyncExitStack() as held:
            for sent in (b"", b"\x94", b"\x94\x00\x00\xa5hel") * 60:
                stream = await held.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
                await stream.send_all(sent)
            with trio.fail_after(60):
                async with AsyncClient.tcp("127.0.0.1", port, token=token) as late:
                    assert (await late.evaluate_one(SQUARE, TASK)).valid
                assert (await early.evaluate_one(SQUARE, TASK)).valid
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_events_are_told_and_can_be_resumed(tmp_path):
    async with AsyncClient.spawn("--workers", "1") as client:
        async with client.events("sandbox.create") as events:
            await client.create_sandbox("seen", source=SQUARE)
            with trio.fail_after(10):
                first = await events.receive()
        assert first.name == "sandbox.create.start"
        async with client.events(after=0) as events:
            with trio.fail_after(10):
                again = [await events.receive() for _ in range(first.seq)]
        assert again[-1] == first
        assert [event.seq for event in again] == list(range(1, first.seq + 1))
        with pytest.raises(ConfigurationError, match="another engine"):
            async with client.events(after=10**6):
                pass


def test_events_come_to_blocking_programs_too(spawned):
    events = spawned.events("sandbox.create")
    with spawned.create_sandbox("seen", source=SQUARE):
        pass  # the iterator is not started: nothing is subscribed to yet
    found = []

    def listen():
        found.append(next(events))

    thread = threading.Thread(target=listen)
    thread.start()
    while not found:
        with spawned.create_sandbox(source=SQUARE):
            pass
    thread.join()
    events.close()
    assert found[0].metadata["sandbox_id"] != "seen"


def tree_of(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)


async def all_gone(pids):
    await until(lambda: not any(map(alive, pids)))


def start(script):
    """A program of its own, which says something when it is ready."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env)


HOST = textwrap.dedent(
    """
    import sys, time
    from evocell.pipe.blocking import Client
    client = Client.spawn("--workers", "2")
    client.create_sandbox("a", source="def loop():\\n    while True: pass")
    print("ready", flush=True)
    client.run("a", "loop")
    """
)


@pytest.mark.trio
async def test_a_host_that_is_killed_takes_everything_with_it():
    host = start(HOST)
    try:
        assert (await trio.to_thread.run_sync(host.stdout.readline)) == b"ready\n"
        pids = tree_of(host.pid)
        assert len(pids) >= 3  # the server and its workers
        host.send_signal(signal.SIGKILL)
        host.wait()
        await all_gone(pids)
    finally:
        host.stdout.close()
        if host.poll() is None:
            host.kill()
            host.wait()


@pytest.mark.trio
async def test_a_host_that_dies_while_others_hold_its_pipes_takes_everything_with_it():
    """Standard input does not end, since a sibling inherited the other end; the server sees that its parent is gone."""
    script = textwrap.dedent(
        """
        import os, subprocess, sys, time
        keep, out = os.pipe()
        server = subprocess.Popen([sys.executable, "-m", "evocell", "serve", "--workers", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder = subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, pass_fds=[server.stdin.fileno(), server.stdout.fileno()], stdout=subprocess.DEVNULL)
        import msgpack
        server.stdin.write(msgpack.packb([0, 0, "hello", [{}]])); server.stdin.flush()
        server.stdin.write(msgpack.packb([0, 1, "guest_notes", [{}]])); server.stdin.flush()
        unpacker = msgpack.Unpacker(server.stdout, read_size=1)
        for message in unpacker:
            if message[:2] == [1, 1]:
                break
        print(server.pid, holder.pid, flush=True)
        time.sleep(60)
        """
    )
    host = start(script)
    line = await trio.to_thread.run_sync(host.stdout.readline)
    server, holder = map(int, line.split())
    try:
        pids = [server, *tree_of(server)]
        host.kill()
        host.wait()
        await all_gone(pids)
    finally:
        host.stdout.close()
        os.kill(holder, signal.SIGKILL)


@pytest.mark.trio
async def test_a_client_that_is_killed_leaves_nothing_on_a_shared_server(tmp_path):
    path = tmp_path / "evocell.sock"
    script = HOST.replace('Client.spawn("--workers", "2")', f"Client.unix({str(path)!r})")
    async with (
        open_server(Config.load(workers=1)) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        host = start(script)
        assert (await trio.to_thread.run_sync(host.stdout.readline)) == b"ready\n"
        assert server.session_names == ["session-1"]
        host.kill()
        host.wait()
        host.stdout.close()
        await until(lambda: not server.session_names)
        assert len(server._guests._worker.host._table) == 0
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_garbage_harms_nobody_else(tmp_path):
    path = tmp_path / "evocell.sock"
    async with (
        open_server(Config.load(workers=1)) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        async with AsyncClient.unix(path) as client:
            await client.create_sandbox("a", source=COUNTER)
            for garbage in (b"\xc1", os.urandom(1000), b"\x94\x00", b""):
                async with connect_unix(path) as streams:
                    await streams.send.send_all(garbage)
            assert (await client.run("a", "add", args=(1,))).unwrap() == 1
        nursery.cancel_scope.cancel()


def test_describe_is_json(tmp_path):
    import json

    from evocell.pipe.description import describe

    printed = subprocess.run(
        [sys.executable, "-m", "evocell", "serve", "--describe"], capture_output=True, check=True
    ).stdout
    assert json.loads(printed) == json.loads(json.dumps(describe()))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--tcp", "0.0.0.0:0", "--token-file", "token"], "loopback addresses only"),
        (["--tcp", "0"], "needs --token-file"),
        (["--tcp", "http", "--token-file", "token"], "takes PORT or HOST:PORT"),
        (["--unix", "here"], "is no socket"),
        (["--unix", "nowhere/x.sock"], "cannot be used"),
        (["--unix", "x", "--tcp", "1"], "not allowed with"),
        (["--max-clients", "0", "--unix", "x"], "must be 1 or more"),
    ],
)
def test_a_bad_option_is_one_sentence(tmp_path, monkeypatch, capsys, options, why):
    (tmp_path / "here").write_text("")
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["serve", *options])
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr().err
    assert status == 2
    assert why in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in Path(tmp_path).iterdir()) in (["here"], ["here", "token"])


@pytest.mark.trio
async def test_what_clients_share_is_nobodys(tmp_path, spawned):
    """Images that were frozen, and the workers, belong to the user of a server of his own."""
    path = tmp_path / "evocell.sock"
    async with (
        open_server(Config.load(workers=1)) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        async with AsyncClient.unix(path) as client:
            await client.create_sandbox("a", source=SQUARE)
            for attempt in (
                client.workers,
                lambda: client.drain_worker("worker-0"),
                lambda: client.freeze("a", "mine"),
            ):
                with pytest.raises(MethodNotFound, match="single client"):
                    await attempt()
            assert {image.id for image in await client.list_images()} == {client.image_id}
            assert (await client.fork_sandbox("a", "b")).id == "b"
            assert (await client.run("b", "solve", args=(3,))).unwrap() == 9
        nursery.cancel_scope.cancel()
    assert [worker.name for worker in await trio.to_thread.run_sync(spawned.workers)] == ["worker-0"]


@pytest.mark.trio
async def test_results_that_the_servers_disk_has_no_room_for_reach_the_client(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path, state = tmp_path / "evocell.sock", tmp_path / "state"
    async with (
        open_server(Config.load(workers=1, state_dir=state), max_clients=1) as server,
        listen_unix(path) as listeners,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_clients, server, listeners)
        async with AsyncClient.unix(path) as client:
            assert (await client.evaluate_one(SQUARE, TASK)).valid
            # Room for the files of programs, and for no commit.
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_048, before[1]))
            try:
                with pytest.raises(StoreError, match="cannot be written") as many:
                    await client.evaluate([SQUARE, "def solve(n): return 5"], TASK)
                with pytest.raises(StoreError) as one:
                    await client.evaluate_one(SQUARE, TASK)
                with pytest.raises(StoreError) as staged:
                    await client.evaluate_stages([SQUARE], [evocell.Stage(TASK)])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert [result.valid for result in many.value.results] == [True, True]
            assert [result.fitness_score for result in one.value.results] == [1.0]
            assert [result.stage for result in staged.value.results] == [0]
            assert (await client.evaluate_one(SQUARE, TASK)).valid
        nursery.cancel_scope.cancel()


def test_fitness_and_lineage_are_there_as_in_process(spawned, beside):
    task = evocell.Evaluation("solve", [evocell.Case((2,))], lambda case, value: float(value))
    told = []
    for engine in (spawned, beside):
        population = "kin"
        (seed,) = engine.evaluate([SQUARE], task, population=population)
        (child,) = engine.evaluate(
            ["def solve(n): return n + 7"],
            task,
            population=population,
            generation=1,
            parents=[seed.sandbox_id],
        )
        best = engine.best(population)[0]
        engine.lineage.annotate(best, {"operator": "plus"})
        engine.fitness.adjust(best, 0.5, "shorter")
        told.append(
            (
                [entry.score for entry in engine.fitness.best(5, population=population)],
                [entry.delta for entry in engine.fitness.history(best)],
                engine.fitness.get(best).score,
                engine.lineage.source(child.sandbox_id),
                engine.lineage.depth(best),
                engine.lineage.ancestors(best) == [seed.sandbox_id],
                engine.lineage.descendants(seed.sandbox_id) == [child.sandbox_id],
                [one.generation for one in engine.lineage.line(best)],
                engine.lineage.get(best).metadata,
                engine.lineage.what_changed(best).diff,
                engine.lineage.common_ancestor(best, seed.sandbox_id) == seed.sandbox_id,
            )
        )
    assert told[0] == told[1]
    with pytest.raises(SandboxNotFound):
        spawned.lineage.get("ghost")
    with pytest.raises(TypeError, match=r"fitness\.best takes most, .*colour"):
        spawned.fitness.best(colour="red")
    with pytest.raises(AttributeError, match=r"does not offer lineage\.record"):
        spawned.lineage.record("x")


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        (b"\xc1 this is no MessagePack", 2, "the connection was closed: a malformed message"),
        (b"\x94\x00\x01\xa4pi", 2, "the connection was closed: .*"),
        (b"\x93\x02\xa4ping\x91\x80", 2, "the connection was closed: .*hello"),
        (b"", 0, ""),
    ],
    ids=["garbage", "cut off", "no hello", "nothing"],
)
def test_a_breach_is_said_on_standard_error_and_in_the_exit_status(said, status, why):
    command = [sys.executable, "-m", "evocell", "serve", "--workers", "1"]
    done = subprocess.run(command, input=said, check=False, capture_output=True, timeout=60)
    text = done.stderr.decode()
    assert (done.returncode, bool(text)) == (status, bool(status)), text
    if status:
        assert re.search(why, text)
        assert len(text.splitlines()) == 1
