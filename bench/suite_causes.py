"""Why tests that pass natively do not pass in the guest, by what their last line says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

#: What a sandbox does not have, or the guest's build of Python: a test for it cannot pass.
LACKING = (
    (
        "no processes",
        (
            r"subprocess|support processes|\bfork|posix_spawn|popen|execv|waitpid|multiprocessing|os\.system|"
            r"no 'ProcessPool|python\.wasm|resource fork|strace"
        ),
    ),
    ("no threads", r"thread|would wait for ever"),
    ("no sockets", r"socket|_ssl\b|requires ssl|'_?ssl'|getaddrinfo|NetworkError|network"),
    ("no signals", r"signal|SIG[A-Z]{3,}|setitimer|KeyboardInterrupt"),
    (
        "extensions for tests",
        (
            r"_test(capi|internalcapi|limitedcapi|buffer|clinic|singlephase|multiphase)|_xx|xxsubtype|ndarray object|"
            r"ContainerNoGC|_interp|C API|get_stack_pointer|needs the _?test|interpreters"
        ),
    ),
    ("no ctypes or mmap", r"ctypes|mmap"),
    (
        "accelerators that are missing",
        r"requires C version|test_decimal\.CIBM|_decimal|_hashlib|OpenSSL|_zstd|zstd|_uuid|requires _|C accelerat|_curses|_dbm|gdbm",
    ),
    (
        "no terminal, users, links or modes",
        (
            r"termios|\bpty\b|\bpwd\b|\bgrp\b|umask|chmod|chown|symlink|hard ?link|os\.pipe|pipe\(\)|\bfcntl|mkfifo|"
            r"os\.link|dup2?\b|Not supported|readline|curses|tkinter|display|lchmod|getuid|setuid|root user|devnull"
        ),
    ),
    ("no time zones or locales of the system", r"tzset|zoneinfo|locale|tzdata"),
    (
        "library without files and sources",
        (
            r"python315\.zip|installed Python|source (code )?(is )?not available|could not get source|Not a directory|"
            r"no source|site module|-[EIS] was given|getsource|sysconfig"
        ),
    ),
)
#: What is otherwise there, and another.
DIFFERENT = (
    (
        "addresses of 32 bits",
        (
            r"too large to convert to C|index-sized|too large for C|C ssize_t|OverflowError|64-bit|bigmem|"
            r"not enough memory|File too large|largefile|2147483648"
        ),
    ),
    ("deeper recursion", r"RecursionError not raised|the call nested deeper|RecursionError"),
    ("out of memory or time", r"the call ended|MemoryError"),
)
_CAUSES = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in (*LACKING, *DIFFERENT))
_LACKING = frozenset(name for name, _ in LACKING)
OTHER = "other"


def cause_of(why: str) -> str:
    """The cause that a test's last line speaks of."""
    return next((name for name, pattern in _CAUSES if pattern.search(why)), OTHER)


def is_lacking(cause: str) -> bool:
    """Whether it is something that a sandbox does not have."""
    return cause in _LACKING


def summary(whys: Iterable[str]) -> str:
    """Causes with their numbers, the most frequent first."""
    counts = Counter(map(cause_of, whys))
    return "; ".join(f"{name} {number}" for name, number in counts.most_common())
