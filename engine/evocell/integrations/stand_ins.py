r"""Threads, processes, alarms and limits for a harness of one's own, as the integrations have them.

A harness is trusted code that runs in the sandbox, beside the candidate. One that wants `subprocess`,
`multiprocessing`, `threading`, `signal.alarm` or `resource` takes these files along, installs them first, and
is called with `Limits` that allow processes::

    first = "import evocell_stand_ins\nevocell_stand_ins.install()\n"
    task = evocell.Evaluation(
        "driver:run",
        cases,
        score,
        harness={**stand_ins(), "driver.py": first + text},
        limits=evocell.Limits(processes=PROCESSES, scratch_bytes=16 << 20),
    )

A process that is started is a guest of its own: `subprocess` runs Python programs in fresh ones, and
`multiprocessing` in copies of the one that starts them. See the guide of OpenEvolve for what works how.
"""

from __future__ import annotations

from evocell.integrations.evaluator_files import PROCESSES, STAND_INS, guest_module

__all__ = ["PROCESSES", "stand_ins"]


def stand_ins() -> dict[str, bytes]:
    """Return the files that a harness takes along, by name.

    ``import evocell_stand_ins; evocell_stand_ins.install()`` puts them in place, in the sandbox, once.
    """
    return {f"{name}.py": guest_module(name) for name in STAND_INS}
