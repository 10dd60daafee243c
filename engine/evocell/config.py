"""Engine settings, from code, environment variables and a TOML file."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import platformdirs
from attrs import Attribute, field, fields, frozen

from evocell.errors import ConfigurationError
from evocell.models.limits import MAX_MEMORY_BYTES, MAX_OUTPUT_BYTES, Limits
from evocell.models.security import SECURITY_PROFILES, SecurityPolicy, SecurityProfile, policy_for
from evocell_runtime.warm import DEFAULT_WARM

ENV_PREFIX = "EVOCELL_"
#: Names the TOML file when `Config.load` is given none.
ENV_PATH = "EVOCELL_CONFIG"

#: The counterpart of the source architecture's blocked modules (system, files, ports, runtime):
#: modules that reach for the host or for the engine's own mailbox. Files need no entry, since a
#: sandbox only sees its own.
DEFAULT_BLOCKED_MODULES = ("_host", "ctypes", "evocell_guest", "multiprocessing", "socket", "subprocess")

Profile = Literal["deterministic", "portable", "realtime"]
BacklogPolicy = Literal["reject", "kill"]
ImageChoice = Literal["imports", "base"]

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def _refuse(key: str, wanted: str, value: object) -> ConfigurationError:
    return ConfigurationError(f"setting {key} must be {wanted}, not {value!r}", key)


def _whole(*, lowest: int = 1, highest: int = (1 << 63) - 1) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise _refuse(attribute.name, f"a whole number from {lowest:,} to {highest:,}", value)

    return check


def _count_or_none(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _whole(highest=1024)(instance, attribute, value)


def _bytes_or_none(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _whole(lowest=1 << 20)(instance, attribute, value)


def _flag(_: object, attribute: Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise _refuse(attribute.name, "true or false", value)


def _one_of(*words: str) -> Callable[[Any, Attribute[Any], Any], None]:
    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if value not in words:
            raise _refuse(attribute.name, " or ".join(map(repr, words)), value)

    return check


def _workers(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        kind = "a number of processes, 0 for the calling one, or left out for one per core"
        raise _refuse(attribute.name, kind, value)


def _as_tuple(value: Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else cast("tuple[str, ...]", value)


def _as_names(value: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return cast("tuple[str, ...]", value)
    return tuple(os.fspath(name) if isinstance(name, os.PathLike) else name for name in value)


def _as_path(value: str | os.PathLike[str] | None) -> Path | None:
    usable = isinstance(value, str | os.PathLike) and os.fspath(value)
    return Path(value).expanduser() if value is not None and usable else cast("Path | None", value)


def _file_names(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(name, str) and name for name in value):
        raise _refuse(attribute.name, "a list of files", value)


def _module_names(_: object, attribute: Attribute[Any], value: object) -> None:
    usable = isinstance(value, tuple) and all(
        isinstance(name, str) and all(part.isidentifier() for part in name.split(".")) for name in value
    )
    if not usable:
        raise _refuse(attribute.name, "a list of module names", value)


def _directory(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Path):
        raise _refuse(attribute.name, "a directory", value)


def _int_field(default: int, *, lowest: int = 1, highest: int = (1 << 63) - 1) -> int:
    return field(
        default=default, validator=_whole(lowest=lowest, highest=highest), metadata={"kind": "whole"}
    )


def _flag_field(*, default: bool) -> bool:
    return field(default=default, validator=_flag, metadata={"kind": "flag"})


@frozen(kw_only=True)
class Config:
    """Settings of an engine; ``docs/configuration.md`` has the table of all keys.

    Attributes:
        default_max_memory: Bytes a call's memory may grow above the image.
        default_max_processes: Live sandboxes at once, per engine and per population.
        default_max_execution_time: Milliseconds a call itself may run.
        default_max_message_queue: Calls of one sandbox that may wait for their turn.
        backlog_policy: What one more does: ``"reject"`` refuses it, ``"kill"`` also ends the sandbox's
            session and all its calls.
        default_max_fuel: Units of work a call may take.
        default_max_output: Bytes a call may write to stdout and stderr together.
        max_module_versions: Versions of each module of a sandbox that are kept.
        gc_interval_ms: Milliseconds between two cycles of the garbage collector.
        gc_retain_generations: Latest generations of each population that the garbage collector leaves whole;
            0 for all.
        gc_elites: Number of the fittest of each population that it leaves, whatever their generation.
        gc_memory_percent: Percentage of memory in use from which it collects at once, and then refuses
            further sandboxes; 100 for never.
        enforcement_poll_interval_ms: Milliseconds between two checks of the resource enforcer.
        enforcement_enabled: Whether the resource enforcer runs and the security gate refuses; without it the
            gate only records would-be refusals in the audit log.
        worker_max_memory: Bytes of memory of its own that a worker process may hold; None for 60 % of the
            machine's memory, divided by the workers.
        emit_fitness_telemetry: Whether fitness results become events.
        emit_resource_telemetry: Whether resource readings become events.
        event_log: Whether all events are written to files in the state directory.
        event_log_max_bytes: How long one of these files may become.
        event_log_max_files: How many of them there may be, of all engines that used the directory.
        security_profile: ``"low"``, ``"medium"`` or ``"high"``.
        blocked_modules: Modules a variant may not import, whatever the profile.
        allowed_modules: Modules that the profile ``"high"`` lets in besides its own list.
        audit_max_entries: Entries of the audit log that are kept, the newest.
        memoise: Whether evaluations that do not say otherwise reuse outcomes of identical earlier calls.
        record_evaluations: Whether an engine with a ``state_dir`` keeps a record of each evaluation's calls.
        profile: ``"deterministic"`` (virtual clock, seeded entropy), ``"portable"`` (that, and the same NaNs
            on every processor, at a price) or ``"realtime"``.
        layers: Zip files with extra pure-Python packages for the guest.
        workers: Worker processes; None for one per core, 0 to run sandboxes in the calling process.
        threads: With ``workers=0``, threads of the calling process that drive guests; None for one per core.
        state_dir: Directory of durable state; None for a temporary one.
        cache_dir: Directory of built images; None for the user's cache directory.
        warm: Modules imported before the image is frozen.
        images: ``"imports"`` runs code that imports a heavy package in an image that has it imported;
            ``"base"`` runs all code in the engine's own image, as another ``warm`` than the default does.

    Raises:
        ConfigurationError: A value is of the wrong kind or out of range.
    """

    default_max_memory: int = _int_field(128 << 20, highest=MAX_MEMORY_BYTES)
    default_max_processes: int = _int_field(10_000)
    default_max_execution_time: int = _int_field(5 * 60_000)
    default_max_message_queue: int = _int_field(10_000)
    backlog_policy: BacklogPolicy = field(
        default="reject", validator=_one_of("reject", "kill"), metadata={"kind": "word"}
    )
    default_max_fuel: int = _int_field(100_000_000_000)
    default_max_output: int = _int_field(1 << 20, highest=MAX_OUTPUT_BYTES)
    max_module_versions: int = _int_field(10)
    gc_interval_ms: int = _int_field(60_000)
    gc_retain_generations: int = _int_field(3, lowest=0)
    gc_elites: int = _int_field(1, lowest=0)
    gc_memory_percent: int = _int_field(90, highest=100)
    enforcement_poll_interval_ms: int = _int_field(1_000)
    enforcement_enabled: bool = _flag_field(default=True)
    worker_max_memory: int | None = field(default=None, validator=_bytes_or_none, metadata={"kind": "whole"})
    emit_fitness_telemetry: bool = _flag_field(default=True)
    emit_resource_telemetry: bool = _flag_field(default=True)
    event_log: bool = _flag_field(default=False)
    event_log_max_bytes: int = _int_field(64 << 20, lowest=1 << 16)
    event_log_max_files: int = _int_field(16)
    security_profile: SecurityProfile = field(
        default="medium", validator=_one_of(*SECURITY_PROFILES), metadata={"kind": "word"}
    )
    blocked_modules: tuple[str, ...] = field(
        default=DEFAULT_BLOCKED_MODULES,
        converter=_as_tuple,
        validator=_module_names,
        metadata={"kind": "modules"},
    )
    allowed_modules: tuple[str, ...] = field(
        default=(), converter=_as_tuple, validator=_module_names, metadata={"kind": "modules"}
    )
    audit_max_entries: int = _int_field(100_000)
    memoise: bool = _flag_field(default=False)
    record_evaluations: bool = _flag_field(default=True)
    profile: Profile = field(
        default="deterministic",
        validator=_one_of("deterministic", "portable", "realtime"),
        metadata={"kind": "word"},
    )
    layers: tuple[str, ...] = field(
        default=(),
        converter=_as_names,
        validator=_file_names,
        metadata={"kind": "files"},
    )
    workers: int | None = field(default=None, validator=_workers, metadata={"kind": "whole"})
    threads: int | None = field(default=None, validator=_count_or_none, metadata={"kind": "whole"})
    state_dir: Path | None = field(
        default=None,
        converter=_as_path,
        validator=_directory,
        metadata={"kind": "path"},
    )
    cache_dir: Path | None = field(
        default=None,
        converter=_as_path,
        validator=_directory,
        metadata={"kind": "path"},
    )
    warm: tuple[str, ...] = field(
        default=DEFAULT_WARM, converter=_as_tuple, validator=_module_names, metadata={"kind": "modules"}
    )
    images: ImageChoice = field(
        default="imports", validator=_one_of("imports", "base"), metadata={"kind": "word"}
    )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Config:
        """Load the settings. Precedence: code, environment, file, defaults.

        Args:
            path: A TOML file with the keys at top level or in a table ``[evocell]``; None reads the one
                that ``EVOCELL_CONFIG`` names, if it is set. Paths in it are relative to it.
            env: Environment variables, ``EVOCELL_`` and the key in capitals; None for the process' own.
                Lists are separated by commas; an empty variable counts as unset.
            **overrides: Settings from code, by key.

        Raises:
            ConfigurationError: The file cannot be read, a key is unknown, or a value cannot be used.
        """
        env = os.environ if env is None else env
        path = path or env.get(ENV_PATH) or None
        settings: dict[str, object] = {}
        if path is not None:
            settings.update(_from_toml(Path(path).expanduser()))
        settings.update(_from_env(env))
        for key, value in overrides.items():
            settings[_known(key, key)] = value
        return cls(**settings)  # type: ignore[arg-type]  # every field checks what it is given

    def limits(self) -> Limits:
        """Return the limits of a call that states none of its own."""
        return Limits(
            fuel=self.default_max_fuel,
            memory_bytes=self.default_max_memory,
            timeout_s=self.default_max_execution_time / 1000,
            output_bytes=self.default_max_output,
        )

    def policy(self, profile: SecurityProfile | None = None) -> SecurityPolicy:
        """Return the policy of the security gate.

        Args:
            profile: The profile; None for this configuration's own.
        """
        return policy_for(
            profile or self.security_profile,
            blocked=self.blocked_modules,
            allowed=self.allowed_modules,
            enforce=self.enforcement_enabled,
        )

    def cache_path(self) -> Path:
        """Return the directory of built images: ``cache_dir``, or the user's cache directory."""
        return self.cache_dir or platformdirs.user_cache_path("evocell")

    def worker_count(self) -> int:
        """Return how many worker processes run guests: ``workers``, or the cores this process may use."""
        return len(os.sched_getaffinity(0)) if self.workers is None else self.workers

    def thread_count(self) -> int:
        """Return how many threads drive guests: ``threads``, or the cores this process may use."""
        return self.threads or len(os.sched_getaffinity(0))


def keys() -> dict[str, Attribute[Any]]:
    """Return every setting by its key, in the order of the documentation."""
    return {attribute.name: attribute for attribute in fields(Config)}


def _known(key: str, shown: str) -> str:
    """Return the key of a setting; refuse an unknown one, naming the nearest match."""
    known = keys()
    if key in known:
        return key
    near = difflib.get_close_matches(key.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ConfigurationError(f"there is no setting {shown!r}; {hint}", key)


def _from_toml(path: Path) -> dict[str, object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"the configuration file {path} cannot be read: {error.strerror or error}", str(path)
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"the configuration file {path} is not TOML: {error}", str(path)) from error
    table = document.get("evocell", document)
    if not isinstance(table, dict):
        raise ConfigurationError(f"evocell in {path} must be a table, written [evocell]", "evocell")
    settings: dict[str, object] = {}
    for key, value in table.items():
        kind = keys()[_known(key, f"{key} in {path}")].metadata["kind"]
        if kind == "path":
            settings[key] = _beside(path, value)
        elif kind == "files" and isinstance(value, list):
            settings[key] = [_beside(path, item) for item in value]
        else:
            settings[key] = value
    return settings


def _beside(path: Path, value: object) -> object:
    """Resolve a relative path against the file that names it; the field validates everything else."""
    if isinstance(value, str) and value and not value.startswith("~"):
        return str(path.parent / value)
    return value


def _from_env(env: Mapping[str, str]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for variable, text in sorted(env.items()):
        if not variable.startswith(ENV_PREFIX) or variable == ENV_PATH:
            continue
        key = _known(variable.removeprefix(ENV_PREFIX).lower(), variable)
        if text.strip():
            settings[key] = _parse(keys()[key].metadata["kind"], text.strip(), variable)
    return settings


def _parse(kind: str, text: str, variable: str) -> object:
    """Parse an environment variable's text into a value for the field to validate."""
    if kind == "whole":
        try:
            return int(text)
        except ValueError:
            raise _refuse(variable, "a whole number", text) from None
    if kind == "flag":
        if text.lower() not in _TRUE + _FALSE:
            raise _refuse(variable, f"one of {', '.join(_TRUE + _FALSE)}", text)
        return text.lower() in _TRUE
    if kind in ("modules", "files"):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    return text
