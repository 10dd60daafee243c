"""What sandboxed evaluators write, kept in a directory of the host."""

from __future__ import annotations

import pytest

from evocell.errors import ConfigurationError
from evocell.integrations.kept_files import MOST_FILES, KeptFiles


@pytest.fixture
def kept(tmp_path):
    return KeptFiles(tmp_path / "kept", 100)


def test_what_one_evaluation_writes_the_next_one_reads(kept):
    assert kept.read() == {}
    assert kept.merge({}, {"log.txt": b"1", "tables/a.csv": b"x"})
    assert kept.read() == {"log.txt": b"1", "tables/a.csv": b"x"}
    assert kept.merge(kept.read(), {"log.txt": None})
    assert kept.read() == {"tables/a.csv": b"x"}


def test_what_two_evaluations_append_at_once_is_kept_from_both(kept):
    kept.merge({}, {"log": b"0\n", "best.json": b"0"})
    before = kept.read()
    kept.merge(before, {"log": b"0\n1\n", "best.json": b"1"})
    kept.merge(before, {"log": b"0\n2\n", "best.json": b"2"})
    assert kept.read() == {"log": b"0\n1\n2\n", "best.json": b"2"}


@pytest.mark.parametrize(
    "changed",
    [
        {"../outside": b"x"},
        {"/etc/passwd": b"x"},
        {"a/../../outside": b"x"},
        {".evocell-kept": b"x"},
        {"log": "text"},
        {"log": b"x" * 101},
        {3: b"x"},
        {str(n): b"" for n in range(MOST_FILES + 1)},
        "nonsense",
        None,
    ],
)
def test_what_a_program_may_have_forged_changes_nothing(kept, tmp_path, changed, caplog):
    kept.merge({}, {"log": b"before"})
    assert not kept.merge(kept.read(), changed)
    assert kept.read() == {"log": b"before"}
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert "is not kept" in caplog.text


def test_code_is_not_kept_and_a_link_is_not_followed(kept, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"own")
    (tmp_path / "kept" / "log").symlink_to(outside)
    assert kept.read() == {}
    assert kept.merge({}, {"evaluator.py": b"x", "log": b"x"})
    assert kept.read() == {"log": b"x"}
    assert outside.read_bytes() == b"own"


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "evaluator.py").write_text("")
    with pytest.raises(ConfigurationError, match="a directory of its own"):
        KeptFiles(tmp_path)


def test_too_much_in_the_directory_says_what_to_do(kept, tmp_path):
    (tmp_path / "kept" / "large").write_bytes(b"x" * 101)
    with pytest.raises(ConfigurationError, match="keep_bytes"):
        kept.read()
