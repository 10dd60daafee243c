"""Specifications that sandboxes are created from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from attrs import Attribute, evolve, field, frozen

from evocell.errors import ConfigurationError
from evocell.models.equality import ByContent
from evocell.models.limits import Limits, optional_limits
from evocell.models.references import SandboxName, Source, sandbox_id
from evocell.models.security import SECURITY_PROFILES, SecurityProfile

MAX_ID_CHARS = 200


def check_id(value: object, what: str) -> None:
    """Refuse an id that is not 1 to 200 printable characters.

    Args:
        value: The id.
        what: The kind of object it identifies, for the message.

    Raises:
        ConfigurationError: The id is invalid.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a string, not {type(value).__name__}", what)
    if not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        hint = "; the text of a program is given by name, as source=" if "\n" in value else ""
        raise ConfigurationError(
            f"{what} must be 1 to {MAX_ID_CHARS} printable characters, not {value[:50]!r}{hint}", what
        )


def _optional_id(_: object, attribute: Attribute[str | None], value: object) -> None:
    if value is not None:
        check_id(value, f"sandbox {attribute.name}")


def _required_id(_: object, attribute: Attribute[str], value: object) -> None:
    check_id(value, f"sandbox {attribute.name}")


def _ids(_: object, attribute: Attribute[tuple[str, ...]], value: tuple[object, ...]) -> None:
    for item in value:
        check_id(item, f"each of sandbox {attribute.name}")


def _id_tuple(value: Sequence[SandboxName]) -> tuple[str, ...]:
    if isinstance(cast("object", value), str):
        raise ConfigurationError(
            f"sandbox parent_ids must be a sequence of ids; write ({value!r},) for one parent",
            "parent_ids",
        )
    if not isinstance(cast("object", value), tuple | list):
        raise ConfigurationError(
            f"sandbox parent_ids must be a tuple or list, not {type(value).__name__}", "parent_ids"
        )
    return tuple(sandbox_id(one) for one in value)


def _generation(_: object, __: Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(
            f"sandbox generation must be a whole number from 0, not {value!r}", "generation"
        )


def _bundle(_: object, __: Attribute[bytes | None], value: object) -> None:
    if value is not None and not isinstance(value, bytes):
        raise ConfigurationError(
            f"sandbox bundle must be the bytes of a zip or wheel, not {type(value).__name__}", "bundle"
        )


def _profile(_: object, __: Attribute[SecurityProfile | None], value: object) -> None:
    if value is not None and value not in SECURITY_PROFILES:
        words = " or ".join(map(repr, SECURITY_PROFILES))
        raise ConfigurationError(
            f"sandbox security_profile must be {words}, not {value!r}", "security_profile"
        )


@frozen
class SandboxSpec:
    """The specification of one sandbox to create, as `batch_create` takes it.

    Attributes:
        id: Id of the sandbox, unique within its engine; None generates one.
        source: The code as text, files by path, a file or a directory.
        bundle: The code as the bytes of a zip or wheel; instead of ``source``.
        image: Name of the image to fork from; None for the one that follows from the code's imports.
        limits: Limits of each call; None is the engine's defaults.
        population: Name of the population it joins.
        generation: Generation it belongs to, from 0.
        parent_ids: Its parents; crossover has two, and the first is its `parent_id`.
        security_profile: ``"low"``, ``"medium"`` or ``"high"``; None is the engine's.
        mutation_type: The kind of mutation that made it, such as ``"seed"``, ``"mutation"``, ``"crossover"``.

    Raises:
        ConfigurationError: A field is invalid, or both ``source`` and ``bundle`` are given.
    """

    id: str | None = field(default=None, validator=_optional_id)
    source: Source | None = field(default=None, kw_only=True, repr=False, eq=ByContent)
    bundle: bytes | None = field(default=None, kw_only=True, repr=False, validator=_bundle)
    image: str | None = field(default=None, kw_only=True, validator=_optional_id)
    limits: Limits | None = field(default=None, kw_only=True, validator=optional_limits)
    population: str | None = field(default=None, kw_only=True, validator=_optional_id)
    generation: int = field(default=0, kw_only=True, validator=_generation)
    parent_ids: tuple[str, ...] = field(default=(), kw_only=True, converter=_id_tuple, validator=_ids)
    mutation_type: str = field(default="seed", kw_only=True, validator=_required_id)
    security_profile: SecurityProfile | None = field(default=None, kw_only=True, validator=_profile)

    def __attrs_post_init__(self) -> None:
        if self.source is not None and self.bundle is not None:
            raise ConfigurationError(
                "a sandbox takes either source or bundle, not both; leave one of them out", "bundle"
            )

    @property
    def code(self) -> Source | None:
        """The source or the bundle; None if the sandbox starts without code."""
        return self.source if self.source is not None else self.bundle

    def without_code(self) -> SandboxSpec:
        """Return a copy without the code, to be kept for the life of the sandbox."""
        return evolve(self, source=None, bundle=None)
