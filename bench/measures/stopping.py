"""How soon a call that does not end is stopped."""

from __future__ import annotations

import evocell
from measures.report import Report, Row, repeat

_ENDLESS = "def solve():\n    while True: pass\n"
_SLEEP = "import time\ndef solve():\n    time.sleep(3600)\n    return 'woke'\n"
_TIMEOUT_S = 0.2
_TARGET_S = 0.25
_KILLS = 20
_SLEEPS = 10


def measure(report: Report, engine: evocell.Engine) -> None:
    """Time an endless loop and a sleep of an hour, in both profiles.

    Args:
        report: Where the rows go.
        engine: A deterministic engine.
    """
    _killed(report, engine, f"`while True: pass`, timeout_s={_TIMEOUT_S:g}", _ENDLESS, report.share(_KILLS))
    engine.create_sandbox("sleeper", source=_SLEEP)
    slept = repeat(lambda: engine.run("sleeper", "solve").unwrap(), report.share(_SLEEPS))
    engine.destroy_sandbox("sleeper")
    report.add(Row(name="`time.sleep(3600)`, deterministic: returns", samples=slept))
    with evocell.Engine(evocell.Config.load(profile="realtime")) as realtime:
        name = f"`time.sleep(3600)`, realtime, timeout_s={_TIMEOUT_S:g}"
        _killed(report, realtime, name, _SLEEP, report.share(_SLEEPS))


def _killed(report: Report, engine: evocell.Engine, name: str, source: str, times: int) -> None:
    engine.create_sandbox("killed", source=source)
    outcomes: list[evocell.Outcome] = []
    taken_s = repeat(
        lambda: outcomes.append(engine.run_with_timeout("killed", "solve", timeout_s=_TIMEOUT_S)), times
    )
    assert {outcome.kind for outcome in outcomes} == {"timeout"}, outcomes
    engine.destroy_sandbox("killed")
    report.add(Row(name=f"{name}: stopped", samples=taken_s, target=_TARGET_S))
    report.add(Row(name=f"{name}: the latest", samples=[max(taken_s)], target=_TARGET_S))
