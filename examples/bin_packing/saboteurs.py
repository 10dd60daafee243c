"""Five hostile programs that are put among the first generation, to be seen dying.

Each is what a careless model or a search for loopholes would sooner or later write. ``dies_of`` is
the reason that the engine must report.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Saboteur:
    """A hostile program.

    Attributes:
        label: What it does, in two or three words.
        dies_of: ``FitnessResult.reason`` it must end with.
        source: Text of its module.
    """

    label: str
    dies_of: str
    source: str


ENDLESS_LOOP = """\
def priority(item, bins):
    while True:
        pass
"""

MEMORY_BOMB = """\
hoard = []


def priority(item, bins):
    while True:
        hoard.append(bytearray(8_000_000))
"""

PROCESS_EXIT = """\
import os


def priority(item, bins):
    os._exit(0)
"""

FILE_READER = """\
def priority(item, bins):
    with open("/etc/passwd") as secrets:
        return [float(len(secrets.read()))] * len(bins)
"""

FORGED_PACKING = """\
import harness


def too_good(items, capacity, priority):
    return [position // 10 for position in range(len(items))]


harness.pack_online = too_good


def priority(item, bins):
    return -bins
"""

SABOTEURS = (
    Saboteur(label="endless loop", dies_of="fuel", source=ENDLESS_LOOP),
    Saboteur(label="memory bomb", dies_of="memory", source=MEMORY_BOMB),
    Saboteur(label="os._exit", dies_of="crashed", source=PROCESS_EXIT),
    Saboteur(label="reads /etc/passwd", dies_of="raised", source=FILE_READER),
    Saboteur(label="forged packing", dies_of="score", source=FORGED_PACKING),
)
