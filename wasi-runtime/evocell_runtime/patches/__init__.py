"""The patch layer: what is changed in the pinned interpreter, and the means to change it.

A room of its own: `model` says what a patch is, `layer` and `memory` apply them, the modules named after what they
mend hold the table's parts.
"""

from __future__ import annotations

import hashlib

from evocell_runtime.patches.allocation import ALLOCATION
from evocell_runtime.patches.buffers import BUFFERS
from evocell_runtime.patches.casts import CASTS
from evocell_runtime.patches.edges import EDGES, LAST_ZERO
from evocell_runtime.patches.floats import FLOATS
from evocell_runtime.patches.integers import INTEGERS
from evocell_runtime.patches.kernels import KERNELS
from evocell_runtime.patches.model import AnyPatch, CodePatch, Data, Donor, Edit, Everywhere, Memory
from evocell_runtime.patches.objects import OBJECTS
from evocell_runtime.patches.python_floats import PYTHON_FLOATS
from evocell_runtime.patches.sizes import SIZES
from evocell_runtime.patches.stacks import STACKS
from evocell_runtime.patches.waits import WAITS

PATCHES: tuple[AnyPatch, ...] = (
    *CASTS,
    *INTEGERS,
    *BUFFERS,
    *SIZES,
    *EDGES,
    *LAST_ZERO,
    *KERNELS,
    *FLOATS,
    *PYTHON_FLOATS,
    *STACKS,
    *WAITS,
    *ALLOCATION,
    *OBJECTS,
)
"""The table, in the order in which it is applied."""

CODE_PATCHES: tuple[CodePatch, ...] = tuple(
    one for one in PATCHES if isinstance(one, Edit | Everywhere | Donor | Data)
)
"""Those that change the module."""

MEMORY_PATCHES: tuple[Memory, ...] = tuple(one for one in PATCHES if isinstance(one, Memory))
"""Those that change the memory of the running interpreter."""

CODE_KEY = hashlib.sha256(repr(CODE_PATCHES).encode()).hexdigest()
"""Names the changes to the module together; part of a compiled interpreter's name."""

KEY = hashlib.sha256(repr(PATCHES).encode()).hexdigest()
"""Names all changes together; part of an image's name."""

NAMES: tuple[str, ...] = tuple(dict.fromkeys(one.name for one in PATCHES))
"""What the changes are called."""
