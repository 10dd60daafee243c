"""Why tests that pass natively do not pass in the guest, by what their last line says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

#: What a sandbox does not have, or the guest's build of Python: a test for it cannot pass.
LACKING = (
    ("no signals", r"signal|SIG[A-Z]{3,}|setitimer|KeyboardInterrupt"),
    (
        "no processes",
        (
            r"subprocess|support processes|\bfork|os\.spawn|'spawn|posix_spawn|popen|execv|waitp?id|multiprocessing|"
            r"os\.system|ProcessPool|python\.wasm|strace|requires a shell|pidfd|ptrace|test_cmd_line|test_class_outcomes|test_durations_forwarded|test_fd_count|isolated_class|test_subtests_reported|test_method_outcomes|test_skip_reason_prop"
        ),
    ),
    ("no threads", r"thread|would wait for ever"),
    (
        "no sockets",
        (
            r"socket|_ssl\b|requires ssl|'_?ssl'|getaddrinfo|network|IPv6|urlopen|connections|getsockname|getpeername|sendto|"
            r"SO_REUSE|could not bind|HTTPS|(?<!open)ssl|sendmsg|create_connection|attribute 'connect'|test_selector_events"
        ),
    ),
    (
        "extensions for tests",
        (
            r"_test(capi|internalcapi|limitedcapi|buffer|clinic|singlephase|multiphase)|_xx|xxsubtype|ndarray object|"
            r"ContainerNoGC|_interp|C API|CApi|get_stack_pointer|interpreters|c_resources|extension\.test_|"
            r"multi_init_extension"
        ),
    ),
    ("no ctypes or mmap", r"ctypes|mmap|test_code\.CoExtra"),
    (
        "accelerators that are missing",
        (
            r"requires C version|decimal(\.\w+)* is not there|test_decimal\.CIBM|_decimal|_hashlib|OpenSSL|zstd|_uuid|"
            r"C accelerat|_curses|_dbm|gdbm"
        ),
    ),
    (
        "files without links, modes, owners and times; terminals; Linux's own calls",
        (
            r"termios|test_mailbox\.\w+\.test_(clean|reread)|test_negative_fd|test_dup|test_oserror_filename|\bpty\b|ptsname|\bpwd\b|\bgrp\b|umask|chmod|chown|symlink|symbolic link|hard ?link|Hardlink|"
            r"os\.pipe|pipe\(\)|fcntl|mkfifo|mknod|os\.link|dup2?\b|duplicated|Not supported|readline|curses|tkinter|"
            r"display|lchmod|setuid|root user|device|1577836800|large timestamps|\d{4,5} != 3\d{4}|extended attribute|xattr|"
            r"(needs?|requires|need fd support for) (an )?(os|posix|sched_|OS)\b|_get_priority|scheduler|affinity|musl|"
            r"fd support|TESTFN_UN|test_utime|parent_mode|_permissions|test_mode|test_touch|rollover|test_compute_files|"
            r"inheritable|bad file descriptor|test_stat_dir_fd|dir_fd|blksize|Need the \w+ command|safe rmtree|disk_usage|undecodable|clock_settime|Remote debugging|sameopenfile|missing-link|sendfile|/proc/self"
        ),
    ),
    ("no time zones or locales of the system", r"tzset|/zoneinfo|locale|tzname"),
    (
        "library without files and sources",
        (
            r"python315\.zip|__init__\.pyc|zipimporter|installed Python|source (code )?(is )?not available|site module|"
            r"could not get source|Not a directory|no source|frozen source|-[EIS] was given|test_linecache|"
            r"exit_exception_traceback|get_cli_details|StateTestCase\.test_skip|test_pyclbr|Pydoc:|'venv'|test_pydoc|test_module_repr_source|test_mixed_case_module|stdlib_dir"
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


def cause_of(why: str, name: str = "") -> str:
    """The cause that a test's last line speaks of, or else its name."""
    return next(
        (cause for text in (why, name) for cause, pattern in _CAUSES if text and pattern.search(text)), OTHER
    )


def is_lacking(cause: str) -> bool:
    """Whether it is something that a sandbox does not have."""
    return cause in _LACKING


def summary(lost: Mapping[str, str]) -> str:
    """Causes of what was lost, by its name, with their numbers, the most frequent first."""
    counts = Counter(cause_of(why, name) for name, why in lost.items())
    return "; ".join(f"{cause} {number}" for cause, number in counts.most_common())
