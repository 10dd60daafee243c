"""Starting an engine in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

_START = (
    "import time\n"
    "from evocell import Engine, silent\n"
    "begun = time.perf_counter()\n"
    "engine = Engine(progress=silent)\n"
    "print(time.perf_counter() - begun)\n"
    "engine.close()\n"
)


def ready_s(environment: Mapping[str, str]) -> float:
    """Start an engine in a process of its own.

    Args:
        environment: What to add to the environment.

    Returns:
        Seconds from asking for the engine to having it, the import of evocell left out.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _START],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    return float(ran.stdout)
