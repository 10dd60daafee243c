"""Test suites in the guest: what a run says line by line, what was lost, and why."""

import io
import unittest
import zipfile

import pytest

from cpython_suite import pack, read_lines
from guest_suites import Run, keep_runs, kept_runs, table_of
from suite_causes import cause_of, is_lacking
from suite_runner import MARK, Recorder


class Sample(unittest.TestCase):
    __test__ = False  # for pytest

    def test_passes(self):
        pass

    def test_fails(self):
        self.assertEqual([1], [2])  # noqa: PT009 - the form that is recorded

    def test_raises(self):
        msg = "no\nprocesses"
        raise OSError(msg)

    def test_has_parts(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)  # noqa: PT009

    @unittest.skip("not here")
    def test_skips(self):
        pass


class Unready(unittest.TestCase):
    __test__ = False

    @classmethod
    def setUpClass(cls):
        msg = "no threads"
        raise RuntimeError(msg)

    def test_waits(self):
        pass


NAME = f"{__name__}.Sample"


@pytest.fixture(scope="module")
def said():
    out = io.StringIO()
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(one) for one in (Sample, Unready))
    suite.run(Recorder(out))
    return out.getvalue()


def test_each_test_has_one_outcome_and_why(said):
    seen, running = read_lines("what a test prints\n" + said)

    assert running == ""
    assert seen == {
        f"{NAME}.test_passes": ("passed", ""),
        f"{NAME}.test_fails": ("failed", "AssertionError: Lists differ: [1] != [2]"),
        f"{NAME}.test_raises": ("error", "OSError: processes"),
        f"{NAME}.test_has_parts": ("failed", "AssertionError: 1 == 1"),
        f"{NAME}.test_skips": ("skipped", "not here"),
        f"setUpClass ({__name__}.Unready)": ("error", "RuntimeError: no threads"),
    }


def test_a_run_that_was_cut_off_tells_which_test_ran(said):
    before = said[: said.index(MARK, said.index("test_raises")) + 9]

    seen, running = read_lines(before)

    assert running == f"{NAME}.test_raises"
    assert f"{NAME}.test_fails" in seen
    assert running not in seen


def test_what_is_lost_has_the_reason_of_its_fixture():
    native = {
        "m.A.x": ("passed", ""),
        "m.A.y": ("passed", ""),
        "m.B.z": ("passed", ""),
        "m.B.w": ("failed", ""),
    }
    guest = {
        "m.A.x": ("passed", ""),
        "m.A.y": ("failed", "1 != 2"),
        "setUpClass (m.B)": ("skipped", "no fork"),
    }
    run = Run("m", guest, native)

    assert run.lost() == {"m.A.y": "failed: 1 != 2", "m.B.z": "skipped: no fork"}
    assert "| `m` | 3 | 1 | 33.3 % | other 1; no processes 1 |" in table_of([run])
    assert "50.00 % without the 1" in table_of([run])


@pytest.mark.parametrize(
    ("why", "cause", "lacking"),
    [
        ("error: OSError: [Errno 58] wasi does not support processes.", "no processes", True),
        ("skipped: No module named '_testcapi'", "extensions for tests", True),
        ("error: OverflowError: cannot fit 'int' into an index-sized integer", "addresses of 32 bits", False),
        ("failed: AssertionError: 1 != 2", "other", False),
    ],
)
def test_causes_are_told_by_what_was_said(why, cause, lacking):
    assert (cause_of(why), is_lacking(cause_of(why))) == (cause, lacking)


def test_a_module_is_packed_with_what_it_names_and_no_other(tmp_path):
    tests = tmp_path / "test"
    for name, text in {
        "__init__.py": "",
        "support/__init__.py": "import test.helpers",
        "helpers.py": "",
        "test_one.py": "from test import shared\nopen(findfile('figures/a.txt'))",
        "test_other.py": "",
        "shared.py": "import deeper",
        "deeper.py": "",
        "figures/a.txt": "1",
        "unused.py": "",
    }.items():
        path = tests / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    with zipfile.ZipFile(io.BytesIO(pack(tests, tests / "test_one.py"))) as packed:
        names = set(packed.namelist())

    parts = (
        "__init__.py",
        "deeper.py",
        "figures/a.txt",
        "helpers.py",
        "shared.py",
        "support/__init__.py",
        "test_one.py",
    )
    assert names == {f"test/{part}" for part in parts}


def test_a_run_goes_on_from_what_was_kept(tmp_path):
    runs = [Run("m", {"m.A.x": ("passed", "")}, None)]
    keep_runs(tmp_path / "kept.json", runs)

    assert [(run.module, dict(run.guest), run.native) for run in kept_runs(tmp_path / "kept.json")] == [
        ("m", {"m.A.x": ["passed", ""]}, None)
    ]
    assert kept_runs(tmp_path / "none.json") == []
