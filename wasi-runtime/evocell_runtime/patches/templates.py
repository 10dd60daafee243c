"""WAT with names in capitals after an @, which stand for other text."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"@([A-Z]+(?:_[A-Z]+)*)")
_DEEPEST = 4


def fill(text: str, named: Mapping[str, str | int]) -> str:
    """Put in what the names stand for, and the names in that.

    Raises:
        KeyError: A name is not known.
    """
    for _ in range(_DEEPEST):
        text = _NAME.sub(lambda found: str(named[found[1]]), text)
    return text
