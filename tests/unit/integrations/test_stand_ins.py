"""What stands in for threads and processes, on the host's Python."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evocell.integrations.in_guest import evocell_stand_ins as stand_ins


def test_an_executor_runs_in_turn_and_keeps_what_was_raised():
    with stand_ins.InTurn(max_workers=4) as executor:
        assert executor.submit(pow, 2, 5).result(timeout=0) == 32
        assert list(executor.map(abs, [-1, -2], timeout=0)) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 / 0).result()


def test_running_out_of_memory_is_not_kept_in_a_future():
    def hoard():
        raise MemoryError

    with pytest.raises(MemoryError):
        stand_ins.InTurn().submit(hoard)


def test_a_script_runs_and_its_output_and_status_are_a_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nprint('err', file=sys.stderr)\nsys.exit(3)\n")
    process = stand_ins.Process(
        [sys.executable, "-u", str(script), "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.communicate(timeout=1) == (b"['a']\n", b"err\n")
    assert process.wait() == process.poll() == process.returncode == 3


def test_text_a_merged_stream_a_command_and_an_exception():
    process = stand_ins.Process(
        ["python3", "-c", "import sys; print('one'); print(1 / 0)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    out, err = process.communicate()
    assert out.startswith("one\nTraceback")
    assert out.endswith("ZeroDivisionError: division by zero\n")
    assert (err, process.returncode) == (None, 1)


def test_a_module_runs(capsys):
    stand_ins.Process([sys.executable, "-m", "this"])
    assert "Zen of Python" in capsys.readouterr().out


def test_the_surroundings_are_as_before(tmp_path):
    before = list(sys.argv), list(sys.path)
    stand_ins.Process(
        [sys.executable, "-c", "import sys; sys.path.clear(); sys.argv.append(1)"], cwd=tmp_path
    )
    assert (sys.argv, sys.path) == before


def test_another_program_is_not_found():
    with pytest.raises(FileNotFoundError, match="no programs in a sandbox"):
        stand_ins.Process(["g++", "x.cpp"])


def test_a_task_of_multiprocessing_and_its_queue():
    multiprocessing = stand_ins._multiprocessing()
    queue = multiprocessing.Queue()
    task = multiprocessing.get_context("spawn").Process(target=queue.put, args=(7,))
    task.start()
    task.join(1)
    assert (queue.get(timeout=1), task.exitcode, task.is_alive()) == (7, 0, False)
    failing = multiprocessing.Process(target=lambda: sys.exit(2))
    failing.start()
    assert failing.exitcode == 2
    with multiprocessing.Pool(4) as pool:
        assert pool.map(abs, [-1]) == pool.starmap(pow, [(1, 2)]) == list(pool.imap(abs, [1])) == [1]
        assert pool.apply_async(divmod, (7, 2)).get(timeout=1) == (3, 1)


def test_everything_is_put_in_place_and_works_there():
    code = """
from evocell.integrations.in_guest.evocell_stand_ins import install
install()
import concurrent.futures, multiprocessing, signal, subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
from openevolve.evaluation_result import EvaluationResult
assert ThreadPoolExecutor(1).submit(int).result() == 0
seen = []
thread = threading.Thread(target=seen.append, args=(1,))
thread.start()
assert seen == [1] and not thread.is_alive()
assert subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True, text=True, timeout=1).stdout == "5\\n"
assert subprocess.check_output([sys.executable, "-c", "print(6)"]) == b"6\\n"
signal.signal(signal.SIGALRM, lambda *_: None)
assert signal.alarm(1) == 0
assert EvaluationResult.from_dict({"a": 1}).to_dict() == {"a": 1}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
