"""What a file's text alone tells about it, without its syntax tree.

Making the tree, walking it and compiling from it is three quarters of the cost of compiling a small file, and
most small files import nothing and name nothing that a policy speaks of. The functions here err on one side
only: what they say of a text is true of its tree, and where they say nothing the tree is asked.
"""

from __future__ import annotations

import re

SHORT_CHARS = 4096
"""Longest text that is compiled without a tree: none so short is nested too deeply to be made into one."""

# In a text of ASCII every name, attribute and keyword is one of these words, whole: no letter has another
# form, and a line that goes on after a backslash never goes on within a word.
_words = re.compile("[A-Za-z_][A-Za-z0-9_]*", re.ASCII).findall
# A declared encoding, which may give bytes another meaning.
_DECLARATION = b"coding"
# Line ends and indents that are not what they look like.
_STRANGE = ("\r", "\f")
# The end of a line after which a statement of the module may begin that does not define a function.
_other_statement = re.compile(r"\n(?!def |async def |[ \t\n#)\]}]|\Z)").search


def text_of(content: bytes) -> str | None:
    """Return a file's content as text; None if its names may be other than its bytes show."""
    return content.decode("ascii") if content.isascii() and _DECLARATION not in content else None


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(_words(text))


def defines_functions_only(text: str) -> bool:
    """Return whether all statements of a module define functions.

    False also for some modules of which it is true, such as those with decorators.
    """
    return not any(one in text for one in _STRANGE) and _other_statement("\n" + text) is None
