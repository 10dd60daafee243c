"""Which files come along with an evaluator, and which do not."""

from __future__ import annotations

import pytest

from evocell.errors import ConfigurationError
from evocell.integrations.evaluator_files import defined_names, gather, guest_module


@pytest.fixture
def project(tmp_path):
    files = {
        "evaluator.py": "import json, numpy\nimport helper\nfrom pack.inner import thing\n",
        "helper.py": "import deeper\n",
        "deeper.py": "",
        "unused.py": "",
        "pack/__init__.py": "",
        "pack/inner.py": "thing = 1\n",
        "pack/notes.txt": "no module",
        "secret.json": "{}",
        "data/a.json": "1",
        "data/b.json": "2",
        "data/.hidden": "",
        "openevolve_output/best.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_an_evaluator_imports_comes_along_and_nothing_else(project):
    found = gather(project / "evaluator.py")
    assert found.evaluator == "evaluator.py"
    assert sorted(found.files) == [
        "deeper.py",
        "evaluator.py",
        "helper.py",
        "pack/__init__.py",
        "pack/inner.py",
    ]


def test_files_are_named_by_patterns_and_a_directory_is_all_that_is_in_it(project):
    assert "data/a.json" in gather(project / "evaluator.py", files=["data/a*"]).files
    found = gather(project / "evaluator.py", files=["data", "secret.json"]).files
    assert {"data/a.json", "data/b.json", "secret.json"} <= set(found)
    assert not any("hidden" in name for name in found)


def test_a_root_above_keeps_the_layout(project):
    found = gather(project / "pack" / "inner.py", root=project, files=["data/b.json"])
    assert found.evaluator == "pack/inner.py"
    assert sorted(found.files) == ["data/b.json", "pack/inner.py"]


def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(project):
    with pytest.raises(ConfigurationError, match=r"no file matches 'nothing/\*'"):
        gather(project / "evaluator.py", files=["nothing/*"])


def test_an_evaluator_outside_of_the_root_is_refused(project):
    with pytest.raises(ConfigurationError, match="is not below root"):
        gather(project / "evaluator.py", root=project / "data")


def test_a_missing_evaluator_and_one_that_is_no_python_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.py cannot be read"):
        gather(tmp_path / "none.py")
    (tmp_path / "bad.py").write_text("def (")
    with pytest.raises(ConfigurationError, match=r"bad\.py is no Python"):
        defined_names(tmp_path / "bad.py")


def test_names_are_found_however_they_are_defined(tmp_path):
    file = tmp_path / "evaluator.py"
    file.write_text(
        "from x import evaluate as evaluate\ndef a(): pass\nb = c, (d) = 1, 2\nif 1:\n    def no(): ...\n"
    )
    assert defined_names(file) == {"evaluate", "a", "b", "c", "d"}


def test_modules_for_the_guest_are_there_as_text():
    assert b"def evaluate(" in guest_module("evocell_driver")
