"""How much fuel a second of work is, for programs of many kinds: how well fuel means work.

    .venv/bin/python bench/fuel.py [--rounds 8]

Each program runs in a guest of its own in this process; the fastest of the rounds counts, by the thread's clock.
Printed are thousand millions of fuel in a second for each, and how far apart they lie.
"""

from __future__ import annotations

import argparse
import statistics
import time

from evocell_runtime.cache import ImageCache
from evocell_runtime.calls import CallLimits
from evocell_runtime.image import Image, open_image
from evocell_runtime.instance import Instance
from evocell_runtime.spec import ImageSpec
from measures.guest_speed import Kernel
from measures.work import OTHERS, SEVENTEEN

_LIMITS = CallLimits(fuel=10**14)
_GROWTH_BYTES = 1 << 30


def main() -> None:
    """Measure all and print them, the one with the least fuel first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="how often each program runs")
    rounds = parser.parse_args().rounds
    image = open_image(ImageSpec(), ImageCache())
    rates = {kernel.name: rate(image, kernel, rounds) for kernel in (*SEVENTEEN, *OTHERS)}
    for name, per_second in sorted(rates.items(), key=lambda row: row[1]):
        print(f"{per_second / 1e9:7.2f}  {name}")
    print(spread("the seventeen", [rates[kernel.name] for kernel in SEVENTEEN]))
    print(spread("all", list(rates.values())))


def rate(image: Image, kernel: Kernel, rounds: int) -> float:
    """Fuel in a second of the processor."""
    guest = image.fork(growth_bytes=_GROWTH_BYTES)
    run(guest, kernel.source)
    best = max(
        fuel / max(taken_s, 1e-6) for taken_s, fuel in (run(guest, "_ = run()") for _ in range(rounds))
    )
    guest.close()
    return best


def run(guest: Instance, program: str) -> tuple[float, int]:
    """Seconds of the processor, and fuel.

    Raises:
        RuntimeError: The program failed.
    """
    call = guest.start(program.encode(), b"", _LIMITS)
    begun = time.thread_time()
    while not call.poll():
        pass
    taken_s = time.thread_time() - begun
    result = call.finish()
    if result.status or not result.returned:
        raise RuntimeError(f"{program}\n{result.stderr.text(2_000)}")
    return taken_s, result.fuel_used


def spread(name: str, rates: list[float]) -> str:
    """A line about how far apart they lie."""
    tenths = statistics.quantiles(rates, n=10)
    return (
        f"{name}: median {statistics.median(rates) / 1e9:.1f}, largest by smallest {max(rates) / min(rates):.2f}, "
        f"90 % by 10 % {tenths[-1] / tenths[0]:.2f}"
    )


if __name__ == "__main__":
    main()
