"""Compiler back ends: several kinds of source, one interface, one result."""

from __future__ import annotations

import io
import zipfile

import pytest

from evocell.code import sources
from evocell.code.sources import BACKENDS, normalise
from evocell.errors import ConfigurationError

TEXT = "def f(): return 1\n"


def bundle():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("program.py", TEXT)
    return stream.getvalue()


def of_every_kind(folder):
    (folder / "program.py").write_text(TEXT, encoding="utf-8")
    packed = folder.parent / f"{folder.name}.zip"
    packed.write_bytes(bundle())
    return [
        ("text", TEXT),
        ("files", {"program.py": TEXT}),
        ("files", {"program.py": TEXT.encode()}),
        ("bundle", bundle()),
        ("bundle", memoryview(bundle())),
        ("path", folder),
        ("path", folder / "program.py"),
        ("path", packed),
    ]


def test_every_kind_of_source_gives_the_same_tree(tmp_path):
    (tmp_path / "source").mkdir()

    for name, source in of_every_kind(tmp_path / "source"):
        assert [one.name for one in BACKENDS if one.accepts(source)] == [name]
        assert normalise(source) == normalise(TEXT)


@pytest.mark.parametrize("source", [None, 3, ["x"], object()])
def test_what_no_back_end_accepts_is_refused(source):
    with pytest.raises(ConfigurationError, match="give program text"):
        normalise(source)


@pytest.mark.parametrize("text", ["program.py", "/home/me/best-so_far.py", "C:\\me\\program.py", "a.whl"])
def test_the_name_of_a_file_is_no_program(text):
    with pytest.raises(ConfigurationError, match="for that file"):
        normalise(text)


@pytest.mark.parametrize("text", ["x=a.py", "import a.py", "a.py\nb", "f(a).py", "#a.py", ""])
def test_what_may_be_a_program_is_not_taken_for_the_name_of_a_file(text):
    assert normalise(text).get("program.py") == text.encode()


def test_the_bytes_of_a_text_are_no_bundle():
    with pytest.raises(ConfigurationError, match="are to be decoded first"):
        normalise(b"def f(n): return n")


def test_a_further_back_end_is_asked_like_the_others(monkeypatch):
    class Cells:
        name = "cells"

        def accepts(self, source):
            return isinstance(source, list)

        def read(self, source):
            return [("program.py", "\n".join(source).encode())]

    monkeypatch.setattr(sources, "BACKENDS", (*BACKENDS, Cells()))

    assert normalise(["x = 1", "y = 2"]).get("program.py") == b"x = 1\ny = 2"
