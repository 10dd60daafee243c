"""Ends a helper process together with its parent process.

The kernel's signal for this (PR_SET_PDEATHSIG) is tied to the thread that started the helper, and event
loops start processes from short-lived threads. So a thread of the helper waits for its parent.
"""

from __future__ import annotations

import os
import select
import threading
import time

_POLL_S = 0.5


def die_with_parent() -> None:
    """End this process at once when its parent has ended in any way.

    A parent that has ended already is detected too.
    """
    parent = os.getppid()
    threading.Thread(target=_wait_and_exit, args=(parent,), name="evocell-parent", daemon=True).start()


def _wait_and_exit(parent: int) -> None:
    try:
        descriptor = os.pidfd_open(parent)
    except (AttributeError, OSError):  # another system, an old kernel, or the parent has ended
        while os.getppid() == parent:
            time.sleep(_POLL_S)
    else:
        if os.getppid() == parent:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll()
    os._exit(1)
