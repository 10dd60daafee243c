"""The client for Ruby, which was written from docs/pipe.md, against a real server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ruby"
RUBY = shutil.which("ruby")
WANTED = ["-rmsgpack", "-e", "exit RUBY_VERSION >= '3.1'"]
CAN_RUN = (
    RUBY is not None and subprocess.run([RUBY, *WANTED], capture_output=True, check=False).returncode == 0
)


@pytest.mark.skipif(
    not CAN_RUN, reason="ruby 3.1 and its msgpack are not installed: apt install ruby-msgpack"
)
def test_the_tour(tmp_path):
    command = tmp_path / "evocell"  # this checkout's, whatever is on the path
    path = os.pathsep.join(filter(None, sys.path))
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -m evocell "$@"\n')
    command.chmod(0o755)
    ended = subprocess.run(
        [RUBY, "-w", EXAMPLE / "tour.rb"],
        cwd=tmp_path,
        env={**os.environ, "EVOCELL": str(command)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("image:")]
    assert lines[1:] == [
        "state is kept: 2 + 3 = 5",
        "beyond 64 bits: 5",
        "double: -1.3333333333333333",
        "square: 0.0",
        "loop: case 0: stopped at the fuel limit of 100,000,000 (reached 100,000,000)",
        "typo: program.py:1:22: invalid syntax",
        "asked by a function of ours: [6.0, 9.0]",
        "handed out one by one: [-2.67, 0.0]",
        "5 sandboxes were created",
        "SandboxNotFound: no sandbox has the id 'nobody'; it was never created or is destroyed",
        "ConfigurationError: run has no argument 'entri'; did you mean 'entry'?",
        "RequestCancelled: the request was cancelled",
        "Busy: 1,024 requests wait for an answer, and no more may; send it again later",
        '{"RequestCancelled: the request was cancelled"=>1024}',
        "ProtocolError: a malformed message: it is longer than 67,108,864 bytes",
        "ProtocolError: a malformed message: it is longer than 67,108,864 bytes",
        "the server has ended with 2",  # its connection was closed for a breach
    ]
