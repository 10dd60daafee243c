"""The identity of a call, the record of an evaluated call, and the result of its replay."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from operator import attrgetter

from attrs import asdict, fields, frozen

from evocell.errors import ConfigurationError
from evocell.models.limits import Limits

__all__ = ["ENGINE_ABI", "CallIdentity", "EvaluationRecord", "MemoInfo", "Replay", "differing"]

ENGINE_ABI = 1
"""Version of the engine's behaviour; changes whenever the same call, image and code would run differently."""


@frozen(kw_only=True)
class CallIdentity:
    """Everything that the outcome of a call in a fork of its own depends on, by content.

    Attributes:
        image: Hash of the frozen memory and the guest's state, not of the image's inputs.
        image_id: Id of the image, to find it.
        version: Digest of the code's files.
        code: Hash of its byte code and its run-time policy.
        harness: Digest of the harness' files; empty without one.
        harness_code: Hash of its byte code; empty without one.
        entry: The entry, as ``"module:qualname"``.
        arguments: Hash of the encoded arguments.
        seed: Seed of the guest's random sources.
        limits: Limits of the call.
        profile: The engine's profile, such as ``"deterministic"``.
        security_profile: The security profile of the code.
        abi: `ENGINE_ABI`.
    """

    image: str
    image_id: str
    version: str
    code: str
    harness: str = ""
    harness_code: str = ""
    entry: str
    arguments: str
    seed: int = 0
    limits: Limits
    profile: str = "deterministic"
    security_profile: str = "medium"
    abi: int = ENGINE_ABI

    @property
    def key(self) -> str:
        """Hash over all fields."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the identity as JSON with sorted keys."""
        code, version = self.code, self.version
        if not (code.isalnum() and code.isascii() and version.isalnum() and version.isascii()):
            return _json_of(self)
        before, between, after = _json_around_code(_but_code(self))
        return f"{before}{code}{between}{version}{after}"

    @classmethod
    def from_json(cls, text: str) -> CallIdentity:
        """Return the identity from the JSON of `to_json`.

        Raises:
            ConfigurationError: It is not such JSON.
        """
        try:
            plain = json.loads(text)
            return cls(**{**plain, "seed": int(plain["seed"]), "limits": Limits(**plain["limits"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigurationError(f"a record of a call cannot be read: {error}", "record") from error


def _json_of(call: CallIdentity) -> str:
    return json.dumps({**asdict(call), "seed": str(call.seed)}, sort_keys=True)


_BUT_CODE = tuple(field.name for field in fields(CallIdentity) if field.name not in {"code", "version"})
_but_code = attrgetter(*_BUT_CODE)


@lru_cache(maxsize=64)
def _json_around_code(values: tuple[object, ...]) -> tuple[str, str, str]:
    """Return the JSON of calls that differ in their code only, before, between and after what differs."""
    call = CallIdentity(code="?", version="?", **dict(zip(_BUT_CODE, values, strict=True)))  # type: ignore[arg-type]
    before, _, rest = _json_of(call).partition('"code": "?"')
    between, _, after = rest.partition('"version": "?"')
    return f'{before}"code": "', f'"{between}"version": "', f'"{after}'


@frozen(kw_only=True)
class EvaluationRecord:
    """Record of a call made in an evaluation, with its outcome.

    Attributes:
        seq: Its number in its store.
        at: Time of the call, in seconds since 1970.
        sandbox_id: The sandbox that made it first.
        call: The identity of the call.
        kind: The kind of its outcome, as `Outcome.kind`.
        outcome: Digest of its outcome without wall time.
        fuel_used: The fuel it used.
        deterministic: Whether a replay must give the same outcome.
    """

    seq: int
    at: float
    sandbox_id: str
    call: CallIdentity
    kind: str
    outcome: str
    fuel_used: int
    deterministic: bool = True

    @property
    def key(self) -> str:
        """Hash over everything that determines its outcome."""
        return self.call.key


@frozen(kw_only=True)
class Replay:
    """Result of replaying a recorded call.

    Attributes:
        record: The record.
        same: Whether the outcomes are identical, bit for bit.
        differences: The differences, a sentence each.
        kind: The kind of the replay's outcome.
        fuel_used: The fuel of the replay.
    """

    record: EvaluationRecord
    same: bool
    differences: tuple[str, ...] = ()
    kind: str = ""
    fuel_used: int = 0


@frozen(kw_only=True)
class MemoInfo:
    """Statistics of memoisation.

    Attributes:
        hits: Calls answered with a memoised outcome.
        misses: Calls that could be memoised and were made.
        refused: Outcomes that were not kept because they are not deterministic.
        entries: Outcomes kept in this process.
        bytes: Their total size.
    """

    hits: int = 0
    misses: int = 0
    refused: int = 0
    entries: int = 0
    bytes: int = 0


def differing(old: CallIdentity, new: CallIdentity) -> list[str]:
    """Return the differences of two identities, a sentence each."""
    sentences = []
    for attribute in fields(CallIdentity):
        before, after = getattr(old, attribute.name), getattr(new, attribute.name)
        if before != after:
            sentences.append(f"{attribute.name} was {_short(before)} and is {_short(after)} here")
    return sentences


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - a line of a table
