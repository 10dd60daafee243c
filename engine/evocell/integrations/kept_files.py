"""What sandboxed evaluators write beside themselves, kept in a directory from one evaluation to the next.

An evaluation begins with a copy of the directory, and when it has returned, what it changed is put back.
Names and content come out of the sandbox, where the evaluated program may have written as well. So they are
checked and stay in the directory, and code is not kept: it would be a way from one program's evaluation into
the next.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evocell.code.paths import check_path
from evocell.errors import ConfigurationError

__all__ = ["KEPT_BYTES", "KeptFiles"]

KEPT_BYTES = 4 << 20
"""How much is kept at most, unless told otherwise."""

MOST_FILES = 1_000

_MARK = ".evocell-kept"
_TEXT = "Files of a sandboxed evaluator. They are untrusted: the programs it evaluates can write here.\n"
_CODE = (".py", ".pyc", ".pth", ".so")

_log = logging.getLogger("evocell")


class KeptFiles:
    """A directory of files that evaluations read and write, each its own copy. Safe from many processes.

    Args:
        directory: The directory; made if it is not there. Nothing but these files may be in it.
        most_bytes: How much all files may take together. What goes beyond leaves the directory as it was.

    Raises:
        ConfigurationError: It holds other files, or cannot be used.
    """

    def __init__(self, directory: Path, most_bytes: int = KEPT_BYTES) -> None:
        self._directory = directory.absolute()
        self._most_bytes = most_bytes
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark = self._directory / _MARK
            if not mark.exists():
                if any(self._directory.iterdir()):
                    raise ConfigurationError(
                        f"{directory} holds other files; what evaluators write is kept in a directory of its "
                        "own, because programs can write there",
                        "keep",
                    )
                mark.write_text(_TEXT, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{directory} cannot be used: {error.strerror}", "keep") from error

    def read(self) -> dict[str, bytes]:
        """Return the files by path.

        Raises:
            ConfigurationError: They are too many or too large, or cannot be read.
        """
        with self._locked():
            found = self._found()
        self._check_size(found, "move some away, or raise keep_bytes")
        return found

    def merge(self, before: Mapping[str, bytes], changed: object) -> bool:
        """Put back what an evaluation changed.

        What was added to the end of a file is added to what the file is by now, since other evaluations may
        have ended meanwhile; of any other change the latest counts. Files of code are left out.

        Args:
            before: What `read` had returned for it.
            changed: Content by path, None for a file that is gone, as the sandbox said: it may be anything.

        Returns:
            Whether it was put back; if not, for what it is or how much, a warning in the log says why.
        """
        try:
            wanted = _checked(changed)
            with self._locked():
                now = self._found()
                after = {**now}
                for path, content in wanted.items():
                    if content is None:
                        after.pop(path, None)
                    else:
                        after[path] = _joined(before.get(path), now.get(path), content)
                self._check_size(after, "raise keep_bytes")
                self._write({path: after.get(path) for path in wanted})
        except (ConfigurationError, OSError) as error:
            why = error.message if isinstance(error, ConfigurationError) else error.strerror
            _log.warning("what an evaluator wrote is not kept in %s: %s", self._directory, why)
            return False
        return True

    def _check_size(self, files: Mapping[str, bytes], remedy: str) -> None:
        n_bytes = sum(map(len, files.values()))
        if len(files) > MOST_FILES or n_bytes > self._most_bytes:
            raise ConfigurationError(
                f"{len(files):,} files of {n_bytes:,} bytes are too many for {self._directory}, which keeps "
                f"{MOST_FILES:,} of {self._most_bytes:,} bytes; {remedy}",
                "keep",
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory / _MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _found(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for folder, names, files in os.walk(self._directory):
            names.sort()
            for name in sorted(files):
                path = Path(folder) / name
                relative = path.relative_to(self._directory).as_posix()
                if relative != _MARK and not path.is_symlink():
                    found[relative] = path.read_bytes() if len(found) <= MOST_FILES else b""
        return found

    def _write(self, files: Mapping[str, bytes | None]) -> None:
        for path, content in files.items():
            target = self._directory / path
            if content is None:
                target.unlink(missing_ok=True)
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, made = tempfile.mkstemp(prefix=".new-", dir=self._directory)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                Path(made).replace(target)
            except BaseException:
                Path(made).unlink(missing_ok=True)
                raise


def _checked(changed: object) -> dict[str, bytes | None]:
    """Return changes whose paths and contents are what they should be.

    Raises:
        ConfigurationError: They are not.
    """
    if not isinstance(changed, Mapping) or len(changed) > MOST_FILES:
        raise ConfigurationError("they are not files by path, or too many", "keep")
    wanted: dict[str, bytes | None] = {}
    for path, content in changed.items():
        checked = check_path(path)
        if checked == _MARK or checked.startswith(f"{_MARK}/"):
            raise ConfigurationError(f"{_MARK} is not the evaluator's", "keep")
        if content is not None and not isinstance(content, bytes):
            raise ConfigurationError(f"{checked!r} is no file", "keep")
        if not checked.endswith(_CODE):
            wanted[checked] = content
    return wanted


def _joined(before: bytes | None, now: bytes | None, after: bytes) -> bytes:
    if before and now is not None and now != before and after.startswith(before):
        return now + after[len(before) :]
    return after
