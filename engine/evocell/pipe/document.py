"""The tables of docs/pipe.md, from the description of the protocol.

``python -m evocell.pipe.document docs/pipe.md`` rewrites them in place; a test fails while they differ.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evocell.pipe.description import describe

__all__ = ["refreshed"]

_PART = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """Return a page with its tables regenerated.

    Args:
        text: The page; a table stands between ``<!-- begin name -->`` and ``<!-- end name -->``.

    Raises:
        KeyError: There is no table of that name.
    """
    described = describe()

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}{_TABLES[found[2]](described)}{found[3]}"

    return _PART.sub(part, text)


def _methods(described: Mapping[str, Any]) -> str:
    text = ""
    for name, method in described["methods"].items():
        result = f"list of parts, each {method['result']}" if method["streams"] else method["result"]
        text += f"\n#### `{name}` → {result}\n\n{_escaped(method['summary'])}\n"
        if method["owner_only"]:
            text += "\nOnly on a server with a single client.\n"
        if method["arguments"]:
            text += "\n" + _fields("argument", method["arguments"])
        if method["errors"]:
            text += "\n" + "".join(f"- `{code}`: {_escaped(why)}\n" for code, why in method["errors"].items())
    return text + "\n"


def _models(described: Mapping[str, Any]) -> str:
    text = ""
    for name, model in described["models"].items():
        text += f"\n#### {name}\n\n{_escaped(model['meaning'])}\n"
        if "one_of" in model:
            text += f"\nOne of {', '.join(model['one_of'])}; the field `type` says which.\n"
        else:
            text += "\n" + _fields("field", model["fields"])
    return text + "\n"


def _fields(what: str, fields: Mapping[str, Any]) -> str:
    rows = [
        (f"`{name}`", _escaped(field["type"]), _default(field), _escaped(field["meaning"]))
        for name, field in fields.items()
    ]
    return _table((what, "type", "if left out", "meaning"), rows)


def _default(field: Mapping[str, Any]) -> str:
    if field["required"]:
        return "required"
    default = field["default"]
    return "nil" if default is None else f"`{json.dumps(default)}`"


def _server_methods(described: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in described["server_methods"].items()]
    return _table(("request", "what it does"), rows)


def _notifications(described: Mapping[str, Any]) -> str:
    rows = [
        (f"`{name}`", one["sender"], f"`{one['params']}`", one["meaning"])
        for name, one in described["notifications"].items()
    ]
    return _table(("notification", "sender", "parameters", "meaning"), rows)


def _errors(described: Mapping[str, Any]) -> str:
    rows = [
        (f"`{code}`", ", ".join(f"`{name}`" for name in one["data"]), _escaped(one["meaning"]))
        for code, one in described["errors"].items()
    ]
    return _table(("code", "in data", "meaning"), rows)


def _limits(described: Mapping[str, Any]) -> str:
    return _table(
        ("limit", "value"),
        [(f"`{name}`", f"{value:,}".removesuffix(".0")) for name, value in described["limits"].items()],
    )


def _greeting(described: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", f"{value:,}") for name, value in described["greeting_limits"].items()]
    return _table(("limit", "value"), rows)


def _extensions(described: Mapping[str, Any]) -> str:
    return _table(("code", "value and payload"), list(described["extensions"].items()))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


_TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "errors": _errors,
    "extensions": _extensions,
    "greeting": _greeting,
    "limits": _limits,
    "methods": _methods,
    "models": _models,
    "notifications": _notifications,
    "server_methods": _server_methods,
}


def main() -> None:
    """Rewrite the tables of a page."""
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pipe.md")
    page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
