"""The wheel and the sdist, outside of a checkout: what is in them, and that they work where they are installed."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def build(source, out, *kinds):
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *kinds]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=environment)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """An environment with the wheel; what evocell depends on is taken from the one that runs the tests."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin/python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(dist[0])]
    subprocess.run(pip, check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # A directory that is named here does not have its own .pth files read: the checkout stays out.
    others = dict.fromkeys([sysconfig.get_path("purelib"), *filter(_holds_packages, sys.path)])
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    return place


def _holds_packages(path):
    return path.endswith("site-packages")


def run(command, tmp_path, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=kept | environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_nothing_else(dist):
    names = zipfile.ZipFile(dist[0]).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "evocell", "evocell_guest", "evocell_runtime", "evocell-0.1.0.dist-info",
    }  # fmt: skip
    for package, source in (
        ("evocell", "engine"),
        ("evocell_guest", "guest"),
        ("evocell_runtime", "wasi-runtime"),
    ):
        tracked = {
            path.relative_to(ROOT / source).as_posix()
            for path in (ROOT / source / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert tracked <= set(names)


def test_the_sdist_makes_the_same_wheel(dist, tmp_path):
    with tarfile.open(dist[1]) as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Debian's 3.11.2
        archive.extractall(tmp_path, **safe)
    (source,) = tmp_path.iterdir()
    assert (source / "LICENSE").exists()
    build(source, tmp_path / "again", "-t", "wheel")
    (again,) = (tmp_path / "again").iterdir()
    assert again.read_bytes() == dist[0].read_bytes()


def test_the_quick_start_works_where_it_is_installed(installed, tmp_path):
    python = installed / "bin/python"
    where = run([python, "-c", "import evocell; print(evocell.__file__, evocell.__version__)"], tmp_path)
    assert where.startswith(str(installed)), where
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()
    (tmp_path / "quick.py").write_text(example)
    assert run([python, "quick.py"], tmp_path, EVOCELL_WORKERS="1") == printed


def test_the_demo_works_where_it_is_installed(installed, tmp_path):
    demo = [installed / "bin/evocell", "demo", "--generations", "1", "--population", "12"]
    assert "The best program is" in run(demo, tmp_path)
    assert "evocell 0.1.0" in run([installed / "bin/evocell", "--version"], tmp_path)
