"""What callers may hand in as the code of an individual."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

#: Program text, files by relative path, a file or directory, or the bytes of a zip or wheel.
Source: TypeAlias = str | Mapping[str, str | bytes] | Path | bytes
