"""What the security gate costs, and what the deterministic profile does: profiles side by side."""

from __future__ import annotations

from functools import partial
from itertools import count

import evocell
from evocell.models.security import SecurityProfile
from measures.report import Report, Row, repeat

_TIMES = 60
_LOOP = "def solve(n=20000):\n    t = 0.0\n    for i in range(n): t += i * 0.5\n    return t\n"
_LINE = "def f{0}(x):\n    return [y * {0} for y in range(x) if y % 3]\n"
_ONE = "def solve():\n    return 1\n"
_PROFILES: tuple[SecurityProfile, ...] = ("low", "medium", "high")
_TASK = evocell.Evaluation("solve", [evocell.Case(expected=1)])
_numbers = count()


def measure(report: Report) -> None:
    """Time compiling and calling under each security profile, and a loop in real and in virtual time.

    Args:
        report: Where the rows go.
    """
    times = report.share(_TIMES)
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        for profile in _PROFILES:
            _compile(engine, profile)
            samples = repeat(partial(_compile, engine, profile), times)
            report.add(Row(name=f"compile 100 new lines, security profile {profile}", samples=samples))
        for profile in _PROFILES:
            sandbox = engine.create_sandbox(source=_ONE, security_profile=profile)
            fuel = engine.batch_evaluate([sandbox], _TASK)[0].fuel_used
            samples = repeat(partial(engine.batch_evaluate, [sandbox], _TASK), times)
            report.add(Row(name=f"evaluate, security profile {profile} ({fuel:,} fuel)", samples=samples))
            engine.destroy_sandbox(sandbox)
    for time in ("deterministic", "realtime"):
        with evocell.Engine(evocell.Config.load(workers=1, profile=time)) as engine:
            sandbox = engine.create_sandbox(source=_LOOP)
            samples = repeat(partial(engine.run, sandbox, "solve"), times)
            report.add(Row(name=f"a loop over 20,000 floats, profile {time}", samples=samples))


def _compile(engine: evocell.Engine, profile: SecurityProfile) -> None:
    source = "".join(_LINE.format(n) for n in range(50)) + f"# {next(_numbers)}\n"
    engine.destroy_sandbox(engine.create_sandbox(source=source, security_profile=profile))
