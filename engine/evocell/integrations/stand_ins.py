r"""Stand-ins for threads, processes, alarms and limits, for custom harnesses.

A harness is trusted code that runs in the sandbox, beside the candidate. A harness that needs `subprocess`,
`multiprocessing`, `threading`, `signal.alarm` or `resource` includes these files, installs them first, and
is called with `Limits` that allow processes::

    first = "import evocell_stand_ins\nevocell_stand_ins.install()\n"
    task = evocell.Evaluation(
        "driver:run",
        cases,
        score,
        harness={**stand_ins(), "driver.py": first + text},
        limits=evocell.Limits(processes=PROCESSES, scratch_bytes=16 << 20),
    )

Each process is a guest of its own: `subprocess` runs Python programs in fresh guests, and `multiprocessing`
in copies of the parent. The guide of OpenEvolve describes the supported features.
"""

from __future__ import annotations

from evocell.integrations.evaluator_files import PROCESSES, STAND_INS, guest_module

__all__ = ["PROCESSES", "stand_ins"]


def stand_ins() -> dict[str, bytes]:
    """Return the files for a harness, by name.

    ``import evocell_stand_ins; evocell_stand_ins.install()`` installs them in the sandbox, once.
    """
    return {f"{name}.py": guest_module(name) for name in STAND_INS}
