"""The client for Node.js, which was written from docs/pipe.md, against a real server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
needs_package = pytest.mark.skipif(
    not (EXAMPLE / "node_modules" / "@msgpack" / "msgpack").is_dir(),
    reason="@msgpack/msgpack is not installed: npm ci --prefix examples/node",
)


@pytest.fixture
def env(tmp_path):
    """An `evocell` command that is this checkout's, whatever is on the path."""
    command = tmp_path / "evocell"
    path = os.pathsep.join(filter(None, sys.path))
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -m evocell "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "EVOCELL": str(command)}


@needs_node
@needs_package
def test_the_tests_of_the_client(env):
    ended = subprocess.run(
        [NODE, "--test"], cwd=EXAMPLE, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stdout
    assert "# skipped 0" in ended.stdout


@needs_node
@needs_package
def test_the_example_evolves(env):
    ended = subprocess.run(
        [NODE, "evolve.js"], cwd=EXAMPLE, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "off by 0.0 with 6 x² - 11" in ended.stdout
    assert "stopped at the fuel limit of 1,000" in ended.stdout
    assert 'bad input: ConfigurationError: isolation must be "session" | "call"' in ended.stdout
    assert "16 sandboxes were created, 16 are alive" in ended.stdout
    assert ended.stdout.endswith("closed\n")


def test_the_lock_names_no_registry():
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert lock["packages"]["node_modules/@msgpack/msgpack"]["version"] == "3.1.2"
