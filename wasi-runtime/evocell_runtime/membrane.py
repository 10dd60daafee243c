"""The membrane's table of host functions, and its WebAssembly module from `membrane.wat`.

`TABLE` is the complete list of the guest's imports, with the decision on each. The text of the
module is `membrane.wat`; this file supplies the numbers that it names with `@`, the declarations
of the real WASI functions, and the stores of the fixed environment.

Source of the errno values and layouts: WASI preview 1, `wasi_snapshot_preview1.witx`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from importlib.resources import files

from attrs import frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.rewrite import WASI_MODULE, FunctionImport

PREOPENS = ("/", "/app", "/harness", "/tmp")  # noqa: S108 - a guest path; order is the image's ABI
"""Guest paths of the preopened directories, as descriptors 3, 4, 5 and 6."""

ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("HOME", "/tmp"),  # noqa: S108 - a guest path
    ("LANG", "C.UTF-8"),
    ("MSGPACK_PUREPYTHON", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("PATH", "/"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("TZ", "UTC"),
)
"""The guest's whole environment; nothing is inherited from the host."""

START_NS = 1_577_836_800_000_000_000
"""The virtual wall clock's first instant and every file's time: 2020-01-01T00:00:00Z, in ns."""

OUTPUT_BYTES = 1 << 20
"""Size of the capture buffer of stdout, and of that of stderr, in bytes."""

TRANSFER_BYTES = 1 << 16
"""Most bytes moved by one host call; WASI allows short transfers."""

QUESTION_MARK = 0xC1
"""First byte of a question to the host, which no msgpack message begins with."""

GLOBALS = ("clock_ns", "rng", "arena", "open_files", "scratch_used", "scratch_entries")
"""The membrane's globals that are saved with the memory at a freeze."""

_CHARGED_BYTES = 4096

WIDE_GLOBALS = frozenset({"clock_ns", "clock_fuel", "rng", "scratch_used"})
"""The 64-bit globals; the others have 32 bits."""


def charged_bytes(size: int) -> int:
    """Return the membrane's charge for a file of a size, or for a directory (size 0).

    Args:
        size: Its length in bytes.
    """
    return _CHARGED_BYTES + -(-size // _CHARGED_BYTES) * _CHARGED_BYTES


class StopReason(IntEnum):
    """Why the membrane ended a call; 0 if it did not."""

    NONE = 0
    EXIT = 1
    OUTPUT = 2
    FILES = 3
    ENTRIES = 4


@frozen
class Decision:
    """The decision on one import.

    Attributes:
        name: The WASI function, or `host.call`.
        answer: `membrane` (answered without the host), `bounded` (passed on with bounds and a
            price), or `refused`.
        what: A readable summary.
        real: The real WASI functions its wrapper may call.
    """

    name: str
    answer: str
    what: str
    real: tuple[str, ...] = ()


_GROWTH = ("fd_filestat_get",)
_LOOK = ("path_filestat_get",)

TABLE: tuple[Decision, ...] = (
    Decision(
        "host.call",
        "membrane",
        "the mailbox: request in, response out; questions, if the host takes them; alarms",
    ),
    Decision("args_get", "membrane", "no arguments"),
    Decision("args_sizes_get", "membrane", "no arguments"),
    Decision("environ_get", "membrane", "a fixed environment"),
    Decision("environ_sizes_get", "membrane", "a fixed environment"),
    Decision("clock_res_get", "membrane", "one microsecond"),
    Decision("clock_time_get", "membrane", "virtual clock, by fuel; real in realtime", ("clock_time_get",)),
    Decision("fd_advise", "membrane", "nothing to do"),
    Decision("fd_close", "bounded", "files only; stdio and directories stay", ("fd_close",)),
    Decision("fd_datasync", "membrane", "nothing to do"),
    Decision("fd_fdstat_get", "bounded", "stdio is a plain stream", ("fd_fdstat_get",)),
    Decision("fd_fdstat_set_flags", "bounded", "files only", ("fd_fdstat_set_flags",)),
    Decision(
        "fd_filestat_get",
        "bounded",
        "constant device, inode, times; size of files only",
        ("fd_filestat_get",),
    ),
    Decision(
        "fd_filestat_set_size",
        "bounded",
        "growth charged, shrinking given back",
        ("fd_filestat_set_size", *_GROWTH),
    ),
    Decision("fd_filestat_set_times", "membrane", "times are constant"),
    Decision("fd_pread", "bounded", "at most 64 KiB", ("fd_pread",)),
    Decision("fd_prestat_get", "membrane", "the four fixed directories"),
    Decision("fd_prestat_dir_name", "membrane", "the four fixed directories"),
    Decision("fd_pwrite", "bounded", "at most 64 KiB, growth charged", ("fd_pwrite", *_GROWTH)),
    Decision(
        "fd_read", "bounded", "at most 64 KiB; stdin is what the host gave, and mostly nothing", ("fd_read",)
    ),
    Decision("fd_readdir", "bounded", "sorted by name, paid by the entry; constant inodes", ("fd_readdir",)),
    Decision("fd_seek", "bounded", "files only", ("fd_seek",)),
    Decision("fd_sync", "membrane", "nothing to do"),
    Decision("fd_tell", "bounded", "files only", ("fd_tell",)),
    Decision(
        "fd_write",
        "bounded",
        "stdout and stderr captured under a cap; files at most 64 KiB, growth charged",
        ("fd_write", "fd_tell", "fd_fdstat_get", *_GROWTH),
    ),
    Decision(
        "path_create_directory",
        "bounded",
        "by its path below /tmp; 4 KiB, number and depth bounded",
        ("path_create_directory", *_LOOK),
    ),
    Decision("path_filestat_get", "bounded", "inode from the path", ("path_filestat_get",)),
    Decision("path_filestat_set_times", "membrane", "times are constant"),
    Decision("path_link", "refused", "ENOTSUP"),
    Decision(
        "path_open",
        "bounded",
        "open-file cap; creation as that of directories, truncation given back; /dev/null takes all",
        ("path_open", *_LOOK),
    ),
    Decision("path_readlink", "refused", "EINVAL: there are no links"),
    Decision("path_remove_directory", "bounded", "given back", ("path_remove_directory", *_LOOK)),
    Decision("path_rename", "bounded", "no directory gets deeper", ("path_rename", *_LOOK)),
    Decision("path_symlink", "refused", "ENOTSUP"),
    Decision("path_unlink_file", "bounded", "given back if nothing is open", ("path_unlink_file", *_LOOK)),
    Decision("poll_oneoff", "membrane", "virtual time; in realtime the host lets the time pass"),
    Decision("proc_exit", "membrane", "ends the call"),
    Decision("sched_yield", "membrane", "where the code pauses"),
    Decision("random_get", "membrane", "seeded; real in realtime", ("random_get",)),
    Decision("sock_accept", "refused", "ENOTSUP"),
    Decision("sock_recv", "refused", "ENOTSUP"),
    Decision("sock_send", "refused", "ENOTSUP"),
    Decision("sock_shutdown", "refused", "ENOTSUP"),
)
"""Every function the interpreter imports."""

COSTS: Mapping[str, int] = {
    "COST_CAPTURE": 500,
    "COST_CLOCK": 500,
    "COST_DESCRIPTOR": 20_000,
    "COST_ENTRY": 7_000,
    "COST_PATH": 400_000,
    "COST_POLL": 500,
    "COST_QUESTION": 200_000,
    "COST_SORTED": 30,
    "COST_SORT_PASS": 3_000,
    "COST_TRANSFER": 30_000,
    "COST_WRITE": 200_000,
    "COST_YIELD": 500,
    "BYTES_PER_FUEL": 1,
    "CAPTURED_BYTES_PER_FUEL": 8,
    "FUEL_PER_NS": 10,
    "FUEL_PER_RANDOM_BYTE": 10,
}
"""Fuel costs of host calls, and fuel per nanosecond of the virtual clock."""

YIELD_INSTRUCTIONS = 40_000
"""Instructions of the membrane itself after which wasmtime yields to the host."""

_LISTING_BYTES = 384 << 10
_ENTRIES = 8192
_LAYOUT = {
    "AT_IOVEC": 0,
    "AT_IOVEC_LEN": 4,
    "AT_COUNT": 8,
    "AT_SLEEP": 16,
    "AT_CLOCK": 24,
    "AT_STAT": 64,
    "AT_STAT_SIZE": 64 + 32,
    "AT_BUCKETS": 1024,
    "AT_INDEX": 4096,
    "AT_SPARE": 4096 + 4 * _ENTRIES,
    "AT_LISTING": 4096 + 8 * _ENTRIES,
    "AT_STDOUT": 4096 + 8 * _ENTRIES + _LISTING_BYTES,
    "AT_STDERR": 4096 + 8 * _ENTRIES + _LISTING_BYTES + OUTPUT_BYTES,
}
AT_SLEEP, AT_STDOUT, AT_STDERR = _LAYOUT["AT_SLEEP"], _LAYOUT["AT_STDOUT"], _LAYOUT["AT_STDERR"]
ARENA_BYTES = AT_STDERR + OUTPUT_BYTES
"""The membrane's reserved area in guest memory, in bytes: cells, listing, captured output."""

_NUMBERS: Mapping[str, int] = {
    **COSTS,
    **_LAYOUT,
    "EBADF": 8,
    "EEXIST": 20,
    "EFAULT": 21,
    "EFBIG": 22,
    "EINVAL": 28,
    "EMFILE": 33,
    "ENAMETOOLONG": 37,
    "ENOMEM": 48,
    "ENOTSUP": 58,
    "EOVERFLOW": 61,
    "EPERM": 63,
    "ENOENT": 44,
    "EROFS": 69,
    "ESPIPE": 70,
    "QUESTION_MARK": QUESTION_MARK,
    "SIGALRM": 14,
    "STOP_EXIT": StopReason.EXIT,
    "STOP_OUTPUT": StopReason.OUTPUT,
    "STOP_FILES": StopReason.FILES,
    "STOP_ENTRIES": StopReason.ENTRIES,
    "AIR_TURNS": YIELD_INSTRUCTIONS // 4,
    "CLOCK_STEP_NS": COSTS["COST_CLOCK"] // COSTS["FUEL_PER_NS"],
    "START_NS": START_NS,
    "FIRST_FILE": 3 + len(PREOPENS),
    "SCRATCH_FD": 2 + len(PREOPENS),
    "APP_FD": 3 + PREOPENS.index("/app"),
    "RIGHTS_TO_READ": 0x2 | 0x4 | 0x20 | 0x200000,  # fd_read, fd_seek, fd_tell, fd_filestat_get
    "OPEN_FILES_AT_BOOT": 256,
    "OUTPUT_BYTES": OUTPUT_BYTES,
    "TRANSFER_BYTES": TRANSFER_BYTES,
    "LISTING_BYTES": _LISTING_BYTES,
    "ENTRIES": _ENTRIES,
    "IOVECS": 1024,
    "PATH_BYTES": 4096,
    "POLL_SUBSCRIPTIONS": 1024,
}


def render(imports: tuple[FunctionImport, ...], *, pages: int, state: Mapping[str, int]) -> str:
    """Render the membrane's text for a memory of `pages` and a saved `state`.

    Args:
        imports: The interpreter's imports; each must be in `TABLE`.
        pages: The memory's initial size, in pages of 64 KiB.
        state: A value for each name in `GLOBALS`.

    Raises:
        ImageError: The interpreter imports a function that is not in the table.
    """
    by_name = {f.export_name: f for f in imports}
    undecided = sorted(set(by_name) - {d.name for d in TABLE})
    if undecided:
        msg = f"the interpreter imports {', '.join(undecided)}, which the membrane does not decide"
        raise ImageError(msg)
    numbers = {
        **_NUMBERS,
        **{f"INIT_{name}": state[name] for name in GLOBALS},
        "MEMORY_PAGES": pages,
        "ENV_COUNT": len(ENVIRONMENT),
        "ENV_BYTES": len(_environment_block()),
    }
    text = files(__package__).joinpath("membrane.wat").read_text(encoding="utf-8")
    text = text.replace(";;@IMPORTS", _declarations(by_name) + "\n  ;;", 1)
    text = text.replace(";;@ENVIRON", _environment_stores() + "\n    ;;", 1)
    return re.sub(r"@([A-Z][A-Za-z0-9_]*)", lambda m: str(int(numbers[m[1]])), text)


def _declarations(by_name: Mapping[str, FunctionImport]) -> str:
    real = sorted({name for decision in TABLE for name in decision.real})
    lines = []
    for name in real:
        signature = by_name[name]
        params = " ".join(signature.params)
        results = f" (result {' '.join(signature.results)})" if signature.results else ""
        lines.append(f'(import "{WASI_MODULE}" "{name}" (func $real_{name} (param {params}){results}))')
    return "\n  ".join(lines)


def _environment_block() -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in ENVIRONMENT)


def _environment_stores() -> str:
    lines, offset = [], 0
    for number, (key, value) in enumerate(ENVIRONMENT):
        lines.append(
            f"(i32.store offset={4 * number} (local.get $vector)"
            f" (i32.add (local.get $text) (i32.const {offset})))"
        )
        offset += len(f"{key}={value}\0".encode())
    for at, byte in enumerate(_environment_block()):
        lines.append(f"(i32.store8 offset={at} (local.get $text) (i32.const {byte}))")
    return "\n    ".join(lines)
