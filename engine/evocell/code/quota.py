"""How much one tree of files may hold, counted while it is being read."""

from __future__ import annotations

from attrs import define

from evocell.errors import ConfigurationError

MAX_FILES = 2_000
#: Directories are not in an archive's size, and a path of a kilobyte needs five hundred of them.
MAX_DIRECTORIES = 2_000
MAX_FILE_BYTES = 4 << 20
MAX_TOTAL_BYTES = 64 << 20


def refuse(path: str, reason: str) -> ConfigurationError:
    """Return the error that refuses a file by its name.

    Args:
        path: The offending path, shown with whatever cannot be printed escaped.
        reason: The rest of the sentence.
    """
    return ConfigurationError(f"{path!r} {reason}", path)


@define
class Quota:
    """Counts files and bytes, and refuses the one that goes over.

    Attributes:
        files: Files so far.
        total_bytes: Bytes so far.
    """

    files: int = 0
    total_bytes: int = 0

    def add_file(self, path: str) -> None:
        """Count a file.

        Raises:
            ConfigurationError: It is one too many.
        """
        self.files += 1
        if self.files > MAX_FILES:
            raise refuse(path, f"is one file too many; a tree has at most {MAX_FILES:,}")

    def add_bytes(self, path: str, size: int) -> None:
        """Count the whole content of a file.

        Raises:
            ConfigurationError: The file is too large, or the tree with it.
        """
        if size > MAX_FILE_BYTES:
            raise refuse(path, f"is larger than the {MAX_FILE_BYTES >> 20} MiB that a file may have")
        self.total_bytes += size
        if self.total_bytes > MAX_TOTAL_BYTES:
            raise refuse(path, f"takes the tree over the {MAX_TOTAL_BYTES >> 20} MiB that it may have")
