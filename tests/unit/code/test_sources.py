from __future__ import annotations

import io
import os
import pickle
import zipfile

import pytest

from evocell.code import paths
from evocell.code.sources import FileTree, normalise
from evocell.errors import ConfigurationError


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path.replace("__", "/"), content)
    return stream.getvalue()


def test_bare_text_is_program_py():
    assert normalise("x = 1").files == (("program.py", b"x = 1"),)


def test_text_that_is_not_unicode_is_left_to_the_guests_compiler():
    assert normalise("x = '\ud800'").files == (("program.py", b"x = '\xed\xa0\x80'"),)


def test_files_by_path_are_sorted_and_named_by_content():
    one = normalise({"b.py": "y", "a/c.bin": b"\0"})
    two = normalise({"a/c.bin": b"\0", "b.py": b"y"})

    assert one == two
    assert [path for path, _ in one.files] == ["a/c.bin", "b.py"]
    assert len(one.digest) == 64


def test_the_digest_depends_on_every_path_and_byte():
    trees = [{"a": "b"}, {"a": "c"}, {"b": "b"}, {"a": "b", "c": ""}, {"ab": ""}, {"a": "", "b": ""}]

    assert len({normalise(tree).digest for tree in trees}) == len(trees)


def test_a_bundle_may_come_as_bytes_or_as_a_path(tmp_path):
    data = zipped(pkg__a="x = 1")
    path = tmp_path / "bundle.whl"
    path.write_bytes(data)

    assert normalise(data) == normalise(path) == normalise({"pkg/a": "x = 1"})


def test_a_path_of_a_file_is_program_text(tmp_path):
    path = tmp_path / "solver.py"
    path.write_text("x = 1", encoding="utf-8")

    assert normalise(path) == normalise("x = 1")


def test_a_path_of_a_directory_is_its_files(tmp_path):
    (tmp_path / "pkg" / "__pycache__").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("program.py", "pkg/__init__.py", "pkg/__pycache__/x.py", ".git/config", ".hidden", "a.pyc"):
        (tmp_path / name).write_text(name, encoding="utf-8")

    assert [path for path, _ in normalise(tmp_path).files] == ["pkg/__init__.py", "program.py"]


def test_a_directory_with_a_link_is_refused_by_name(tmp_path):
    (tmp_path / "program.py").write_text("", encoding="utf-8")
    (tmp_path / "secret.py").symlink_to("/etc/passwd")

    with pytest.raises(ConfigurationError, match=r"secret\.py' is a link"):
        normalise(tmp_path)


def test_a_pipe_in_a_directory_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")

    with pytest.raises(ConfigurationError, match=r"pipe\.py' is not a regular file"):
        normalise(tmp_path)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.py' cannot be read"):
        normalise(tmp_path / "gone.py")


def test_a_large_file_on_disk_is_refused_unread(tmp_path):
    with (tmp_path / "big.py").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(ConfigurationError, match=r"big\.py' is larger than the 4 MiB"):
        normalise(tmp_path)


@pytest.mark.parametrize("source", [3, None, ["a.py"], {}, b""])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(ConfigurationError):
        normalise(source)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("../a.py", r"\.\."),
        ("a/../../b.py", r"\.\."),
        ("a\\b.py", "backslash"),
        ("a\0.py", "NUL"),
        ("a//b.py", "empty part"),
        ("./a.py", "empty part or a"),
        ("a/", "empty part"),
        ("", "0 characters"),
        ("a" * 256, "255 bytes"),
        ("a/" * 600 + "b", "1,024"),
        ("a\nb.py", "printed"),
        ("a\ud800.py", "printed"),
        (3, "not a text"),
    ],
)
def test_a_path_that_could_name_anything_else_is_refused(path, reason):
    with pytest.raises(ConfigurationError, match=reason):
        normalise({path: ""})


@pytest.mark.parametrize(
    "files",
    [
        {"a.py": "", "A.py": ""},
        {"pkg/a.py": "", "PKG/b.py": ""},
        {"stra\u00dfe.py": "", "STRASSE.py": ""},
        {"\u00e9.py": "", "e\u0301.py": ""},
        {"a": "", "a/b.py": ""},
    ],
)
def test_names_that_clash_are_refused(files):
    with pytest.raises(ConfigurationError, match=r"clashes with|needs a directory"):
        normalise(files)


def test_content_that_is_neither_text_nor_bytes_is_refused():
    with pytest.raises(ConfigurationError, match=r"a\.py' holds int"):
        normalise({"a.py": 3})


def test_sizes_are_bounded(monkeypatch):
    with pytest.raises(ConfigurationError, match=r"program\.py' is larger than the 4 MiB"):
        normalise("x" * ((4 << 20) + 1))
    with pytest.raises(ConfigurationError, match="one file too many"):
        normalise({f"m{index}.py": "" for index in range(2001)})
    monkeypatch.setattr(paths, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(ConfigurationError, match=r"b\.py' takes the tree over"):
        normalise({"a.py": "123456", "b.py": "123456"})


def test_modules_are_listed_by_their_names():
    tree = normalise(
        {
            "program.py": "",
            "pkg/__init__.py": "",
            "pkg/sub/deep.py": "",
            "pkg/data.txt": "",
            "not-a-module.py": "",
            "both.py": "",
            "both/__init__.py": "",
            "__init__.py": "",
        }
    )

    assert tree.modules() == [
        ("both", True, "both/__init__.py"),
        ("pkg", True, "pkg/__init__.py"),
        ("pkg.sub.deep", False, "pkg/sub/deep.py"),
        ("program", False, "program.py"),
    ]


def test_a_tree_can_be_read_and_replaced_in_part():
    tree = normalise({"a.py": "1", "b.py": "2"})

    assert tree.get("a.py") == b"1"
    assert tree.get("c.py") is None
    assert tree.replace({"b.py": b"3"}) == normalise({"a.py": "1", "b.py": "3"})
    assert tree.get("b.py") == b"2"


def test_trees_pickle_and_hash():
    tree = normalise({"a.py": "1"})

    assert pickle.loads(pickle.dumps(tree)) == tree
    assert len({tree, normalise({"a.py": "1"})}) == 1


def test_the_empty_tree_is_a_tree():
    assert FileTree().files == ()
