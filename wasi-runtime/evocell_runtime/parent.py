"""Ties the life of a helper process to that of the process which started it.

The kernel's own signal for this (PR_SET_PDEATHSIG) follows the thread that started the helper, and
event loops start processes from threads that soon end. So a thread of the helper waits for its parent.
"""

from __future__ import annotations

import os
import select
import threading
import time

_POLL_S = 0.5


def die_with_parent() -> None:
    """End this process at once when the one that started it has ended, however it ended.

    A parent that is gone already is noticed too.
    """
    parent = os.getppid()
    threading.Thread(target=_wait_and_exit, args=(parent,), name="evocell-parent", daemon=True).start()


def _wait_and_exit(parent: int) -> None:
    try:
        descriptor = os.pidfd_open(parent)
    except (AttributeError, OSError):  # another system, an old kernel, or the parent is gone
        while os.getppid() == parent:
            time.sleep(_POLL_S)
    else:
        if os.getppid() == parent:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll()
    os._exit(1)
