"""Tracebacks with only a variant's own frames, robust against hostile exceptions.

An exception comes from untrusted code: its ``__str__`` may raise or return megabytes, its chain may
be circular, its stack may be 100,000 frames deep. None of that escapes from here, and the text is cut
to a few KiB, keeping head and tail.
"""

from __future__ import annotations

from io import FileIO
from types import TracebackType
from typing import Any

MAX_MESSAGE_BYTES = 4 << 10
MAX_TRACEBACK_BYTES = 16 << 10
_MAX_FRAMES = 40
_MAX_CHAIN = 8
_MAX_GROUP = 8
_MAX_SOURCE_BYTES = 4 << 20
_PART_BYTES = 32 << 10
_CUT = "\n[…]\n"

# Descriptors of the base classes: a subclass may cover these names with properties of its own.
_type_name = type.__dict__["__name__"].__get__
_cause = BaseException.__dict__["__cause__"].__get__
_context = BaseException.__dict__["__context__"].__get__
_suppressed = BaseException.__dict__["__suppress_context__"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__
_group_members = BaseExceptionGroup.__dict__["exceptions"].__get__


def clip(text: str, max_bytes: int) -> str:
    """Return `text` as a plain str that is encodable in UTF-8, its middle cut out if it is too long."""
    # Slicing a subclass by the base's method gives a plain str and runs none of its own code.
    length = str.__len__(text)
    if length > max_bytes:
        half = max_bytes // 2
        head, tail = str.__getitem__(text, slice(half)), str.__getitem__(text, slice(-half, None))
        plain = head + _CUT + tail
    else:
        plain = str.__getitem__(text, slice(None))
    data = plain.encode("utf-8", "backslashreplace")
    if len(data) > max_bytes:
        half = max_bytes // 2 - len(_CUT)
        return data[:half].decode("utf-8", "ignore") + _CUT + data[-half:].decode("utf-8", "ignore")
    return data.decode("utf-8")


def type_name(error: BaseException) -> str:
    """Return the plain name of the exception's real type."""
    return clip(_type_name(type(error)), 200)


def message(error: BaseException) -> str:
    """Return the exception's text, or a placeholder if it has none."""
    try:
        return clip(str(error), MAX_MESSAGE_BYTES)
    except BaseException as failure:
        return f"<its __str__ raised {type_name(failure)}>"


def render(error: BaseException, roots: tuple[str, ...]) -> str:
    """Render an exception with its chain, like Python's own tracebacks.

    Args:
        error: The exception.
        roots: Directories, each with a ``/`` at its end, whose files' frames are shown.

    Returns:
        Text of at most 16 KiB, without a newline at its end.
    """
    rendering = _Rendering(roots)
    rendering.chain(error, "")
    return clip("\n".join(rendering.lines), MAX_TRACEBACK_BYTES)


class _Rendering:
    """Lines of a traceback under construction."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self.lines: list[str] = []
        self._roots = roots
        self._seen: set[int] = set()
        self._sources: dict[str, list[str]] = {}

    def chain(self, error: BaseException, indent: str) -> None:
        """Add an exception below its causes."""
        # Each with the connecting sentence to the one raised after it, which is printed below it.
        links: list[tuple[BaseException, str]] = []
        current: BaseException | None = error
        relation = ""
        while current is not None and id(current) not in self._seen and len(links) < _MAX_CHAIN:
            self._seen.add(id(current))
            links.append((current, relation))
            cause = _cause(current)
            if cause is not None:
                relation = "The above exception was the direct cause of the following exception:"
                current = cause
            else:
                relation = "During handling of the above exception, another exception occurred:"
                current = None if _suppressed(current) else _context(current)
        for link, joined in reversed(links):
            self._one(link, indent)
            if joined:
                self.lines.extend(("", indent + joined, ""))

    def _one(self, error: BaseException, indent: str) -> None:
        add = self.lines.append
        frames = _frames(_traceback(error), self._roots)
        if frames:
            add(indent + "Traceback (most recent call last):")
        for path, line, name in frames:
            if not path:
                add(indent + name)
                continue
            add(f'{indent}  File "{path}", line {line}, in {name}')
            source = self._source_line(path, line)
            if source:
                add(f"{indent}    {source}")
        text = message(error)
        add(f"{indent}{type_name(error)}: {text}" if text else f"{indent}{type_name(error)}")
        self.lines.extend(indent + note for note in _notes(error))
        if issubclass(type(error), BaseExceptionGroup):
            members = _group_members(error)
            for number, member in enumerate(members[:_MAX_GROUP], 1):
                add(f"{indent}  +--------------- {number} ---------------")
                if len(indent) < 4 * _MAX_CHAIN:
                    self.chain(member, indent + "  | ")
            if len(members) > _MAX_GROUP:
                add(f"{indent}  and {len(members) - _MAX_GROUP} more exceptions")

    def _source_line(self, path: str, line: int) -> str:
        lines = self._sources.get(path)
        if lines is None:
            try:
                lines = _read(path).decode("utf-8", "replace").splitlines()
            except BaseException:
                lines = []
            self._sources[path] = lines
        return clip(lines[line - 1].strip(), 400) if 1 <= line <= len(lines) else ""


def _read(path: str) -> bytes:
    """Read a file, up to a bound, in parts: a read allocates all it may return, and memory only grows."""
    data = b""
    with FileIO(path) as file:
        while len(data) < _MAX_SOURCE_BYTES:
            part = file.read(_PART_BYTES)
            data += part
            if len(part) < _PART_BYTES:
                break
    return data


def _notes(error: BaseException) -> list[str]:
    try:
        notes: Any = error.__notes__
        if type(notes) is list:
            return [clip(note, 1 << 10) for note in notes[:8] if issubclass(type(note), str)]
    except BaseException:
        return []
    return []


def _frames(traceback: TracebackType | None, roots: tuple[str, ...]) -> list[tuple[str, int, str]]:
    """Return the variant's frames, with repeats folded and the middle of a deep stack omitted.

    An entry without a path is a remark to print in its place.
    """
    frames: list[tuple[str, int, str]] = []
    last: tuple[str, int, str] | None = None
    repeats = skipped = 0
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.startswith(roots):
            frame = (code.co_filename, traceback.tb_lineno or 0, code.co_name)
            if frame == last:
                repeats += 1
            else:
                if repeats:
                    frames.append(_repeated(repeats))
                frames.append(frame)
                last, repeats = frame, 0
                # A cycle of several functions does not fold; drop from the middle as it grows.
                if len(frames) > 2 * _MAX_FRAMES:
                    half = _MAX_FRAMES // 2
                    skipped += len(frames) - 2 * half
                    del frames[half:-half]
        traceback = traceback.tb_next
    if repeats:
        frames.append(_repeated(repeats))
    if skipped or len(frames) > _MAX_FRAMES:
        half = _MAX_FRAMES // 2
        skipped += len(frames) - 2 * half
        frames[half:-half] = [("", 0, f"  [{skipped} frames left out]")]
    return frames


def _repeated(times: int) -> tuple[str, int, str]:
    return "", 0, f"  [Previous line repeated {times} more time{'s' if times > 1 else ''}]"
