"""Hints on failures that are caused by the sandbox, appended to Python's messages.

A program that works natively may fail here for lack of a thread, a socket or a writable directory, and
Python's message names a missing attribute or an error number. Only uncaught exceptions get hints.
"""

from __future__ import annotations

import sys

FILES = (
    "the files of a program and of the sandbox are read-only; Limits(scratch_bytes=...) gives a call a "
    "writable /tmp, and what a program makes by a relative name is then kept there"
)
THREADS = (
    "there are no threads in the sandbox: call the functions one after the other, with workers=1 or n_jobs=1"
)
PROCESSES = (
    "there are no processes in the sandbox: do the work in this one, with workers=1 or n_jobs=1; the engine "
    "runs several programs side by side"
)
NETWORK = (
    "there is no network in the sandbox: pass the data as arguments, or put it in a file of the program's"
)
SIGNALS = "there are no signals and no alarms in the sandbox: Limits(fuel=..., timeout_s=...) stop a call"
STDIN = "nothing can be typed in the sandbox: pass what is to be read as an argument"
DESCRIPTORS = (
    "descriptors of the sandbox cannot be duplicated unless a file was opened by its name: open it again"
)
MAPPED = "the sandbox cannot map files into memory: read them, with open, numpy.load or numpy.fromfile"
PLAIN_FILES = (
    "the sandbox has plain files and directories only: no sockets, links, pipes, devices or copies of "
    "descriptors"
)
MACHINE = (
    "the sandbox does not tell of the machine, its load, disks and priorities: a program's room is what its "
    "Limits say, such as memory_bytes and scratch_bytes; take a fixed number in place of this one"
)
USERS = "there are no users in the sandbox: pass the name as an argument, or set LOGNAME in os.environ first"
TERMINALS = (
    "there is no terminal in the sandbox: shutil.get_terminal_size gives a size, and print writes to a file"
)
NOT_BUILT = "this module of the standard library is not built into the sandbox: do without it"
PACKAGES = (
    "the sandbox has the packages that `evocell layer packages` lists, and no others unless they are added: "
    "those in pure Python with Config(layers=...)"
)

_READ_ONLY = 69  # EROFS of WASI
_NOT_SUPPORTED = 58
_BY_ATTRIBUTE = {
    "_socket": NETWORK,
    "socket": NETWORK,
    "signal": SIGNALS,
    "_posixsubprocess": PROCESSES,
    "_multiprocessing": PROCESSES,
}
_OF_OS = {
    PROCESSES: (
        "fork forkpty kill killpg pipe popen posix_spawn posix_spawnp register_at_fork system getpgid "
        "getpgrp getsid setpgid setpgrp setsid pidfd_open unshare setns"
    ),
    MACHINE: (
        "getloadavg statvfs fstatvfs disk_usage nice getpriority setpriority getrandom sched_setaffinity "
        "sched_getscheduler sched_setscheduler sched_getparam sched_setparam sched_get_priority_max "
        "sched_get_priority_min sync"
    ),
    USERS: (
        "getlogin getgroups getgrouplist initgroups setgroups getresuid getresgid setuid setgid seteuid "
        "setegid setreuid setregid setresuid setresgid"
    ),
    TERMINALS: (
        "get_terminal_size ttyname ctermid openpty login_tty posix_openpt ptsname grantpt unlockpt "
        "tcgetpgrp tcsetpgrp"
    ),
    PLAIN_FILES: (
        "chown fchown lchown fchmod chroot fchdir mkfifo mknod umask getxattr setxattr listxattr "
        "removexattr lockf sendfile splice copy_file_range posix_fallocate memfd_create eventfd "
        "timerfd_create fwalk readv writev preadv pwritev"
    ),
}
"""What a program finds missing in `os` and `shutil`, with the remedy."""
_OF_OS_PREFIXES = ("exec", "spawn", "wait")


def hint_for(error: BaseException) -> str:
    """Return a remedy for an exception, as a sentence without capital and full stop; empty if unknown."""
    try:
        return _hint_for(error)
    except BaseException:
        return ""


def _hint_for(error: BaseException) -> str:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < 8:
        seen.add(id(current))
        found = _hint(current)
        if found:
            return found
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return ""


def _hint(error: BaseException) -> str:
    kind = type(error)
    text = str(error.args[0])[:400] if error.args else ""
    if isinstance(error, OSError):
        number = error.errno
        if number == _READ_ONLY or "No usable temporary directory" in str(error.args[1:2]):
            return FILES
        if number == _NOT_SUPPORTED:
            return _unsupported(kind, str(error.args[1:2]))
        if "mmap is unavailable" in text:
            return MAPPED
        if "No username set in the environment" in text:
            return USERS
        if "could not bind on any address" in text:
            return NETWORK
        if kind.__name__ in {"URLError", "gaierror"}:
            return NETWORK
    if isinstance(error, AttributeError):
        name, of = error.name, getattr(error.obj, "__name__", "")
        if of in {"os", "posix", "shutil"} and "has no attribute" in text:
            return _of_os(str(name))
        return _BY_ATTRIBUTE.get(of, "") if kind is AttributeError and "has no attribute" in text else ""
    if kind is RuntimeError and "can't start new thread" in text:
        return THREADS
    if kind is NotImplementedError and "multiprocessing" in text and "in a sandbox" not in text:
        return PROCESSES
    if kind is EOFError and "when reading a line" in text:
        return STDIN
    if isinstance(error, ImportError):
        name = error.name or ""
        if name in {"_multiprocessing", "_posixsubprocess", "_posixshmem"}:
            return PROCESSES
        if name in {"_ssl", "_socket"}:
            return NETWORK
        return _not_found(name) if isinstance(error, ModuleNotFoundError) else ""
    return ""


def _of_os(name: str) -> str:
    for hint, names in _OF_OS.items():
        if name in names.split():
            return hint
    return PROCESSES if name.startswith(_OF_OS_PREFIXES) else ""


def _unsupported(kind: type, text: str) -> str:
    if "does not support processes" in text:
        return PROCESSES
    if kind.__module__ == "socket":
        return NETWORK
    return "" if NETWORK in text or DESCRIPTORS in text else PLAIN_FILES


def _not_found(name: str) -> str:
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        return NOT_BUILT
    return PACKAGES if first == name and not first.startswith("evocell") else ""
