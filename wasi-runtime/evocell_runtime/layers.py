"""Layers: pure-Python packages for the guest, resolved by pip and packed into one zip.

pip resolves for the guest's Python, not for the host's; packages of the image are given to it as empty
wheels, at the image's versions, so that nothing is packed twice and conflicts are refused. Only pure-Python
wheels are accepted, and nothing is built, since building would run code.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.parser import BytesHeaderParser
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from attrs import frozen

from evocell_runtime.artifacts import GUEST_PYTHON, locate
from evocell_runtime.errors import ImageError

__all__ = ["BuiltLayer", "Package", "build_layer", "pack_tree", "provided_packages"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_NATIVE = (".so", ".pyd", ".dylib", ".dll", ".a", ".o")
_LEFT_OUT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_SKIPPED = frozenset({"__pycache__", "bin"})
_TARGET = (
    *("--only-binary", ":all:"),
    *("--platform", "any"),
    *("--implementation", "py"),
    *("--abi", "none"),
    *("--python-version", GUEST_PYTHON),
    # pip compares with the Python that runs it; `_refuse_unfit` compares with the guest's.
    "--ignore-requires-python",
)
_NOT_FOUND = re.compile(r"No matching distribution found for ([^\s;]+)")
_NAMING = ("--requirement", "--constraint", "--editable")
"""Options of a requirements file that request packages."""

_MOST_ROUNDS = 10
_BACKTRACKED = re.compile(r"pip is looking at multiple versions of (\S+) to")
_CAUSE = "The conflict is caused by:"
_SHOWN_CAUSES = 6
_PIP_S = 180.0
"""Timeout of one run of pip: one that tries ever older versions searches in vain."""


@frozen(order=True)
class Package:
    """A package with its version.

    Attributes:
        name: Its normalised name.
        version: Its version.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@frozen
class BuiltLayer:
    """A built layer.

    Attributes:
        path: The zip.
        packages: Its packages, sorted by name.
        provided: Requested or required packages that every image has already.
    """

    path: Path
    packages: tuple[Package, ...]
    provided: tuple[Package, ...]


def build_layer(
    requirements: Path, output: Path, report: Callable[[str], None] = lambda _: None
) -> BuiltLayer:
    """Build a layer from a requirements file, with all dependencies. Blocks.

    The same wheels give the same bytes, and so the same image.

    Args:
        requirements: The file, in pip's form, with pip's own options if need be.
        output: The zip to write, replacing an existing file.
        report: Called with each step, as a phrase.

    Raises:
        ImageError: A package has no pure-Python wheel, conflicts with the image, or cannot be found; the
            message names it. Or pip is missing, or a file cannot be read or written.
    """
    if not requirements.is_file():
        raise ImageError(f"there is no file {requirements}; give a requirements.txt")
    installed = provided_packages()
    with TemporaryDirectory(prefix="evocell-layer-") as name:
        folder = Path(name)
        stubs = _write_stubs(folder / "stubs")
        constraints = folder / "constraints.txt"
        constraints.write_text("".join(f"{one.name}=={one.version}\n" for one in installed))
        find = ["--find-links", str(stubs), "--constraint", str(constraints)]
        report("resolving")
        chosen, provided = _resolve(requirements, find, folder, set(installed))
        tree = folder / "tree"
        tree.mkdir()
        if chosen:
            report(f"downloading {len(chosen)} packages")
            exact = [f"{one.name}=={one.version}" for one in chosen]
            sources = _source_options(requirements, folder)
            _pip(["install", "--no-deps", "--no-compile", "--target", str(tree), *_TARGET, *sources, *exact])
        report("packing")
        data = pack_tree(tree)
    try:
        temporary = output.with_name(output.name + ".new")
        temporary.write_bytes(data)
        temporary.replace(output)
    except OSError as error:
        raise ImageError(f"the layer cannot be written to {output}: {error.strerror}") from error
    return BuiltLayer(output, tuple(sorted(chosen)), tuple(sorted(provided)))


def provided_packages() -> tuple[Package, ...]:
    """Return the packages of every image, from the interpreter's own files."""
    return tuple(sorted(Package(_normal(name), version) for name, version, _ in _metadata()))


def pack_tree(tree: Path) -> bytes:
    """Pack a directory of installed packages; the same files give the same bytes.

    Raises:
        ImageError: A file is compiled code; the message names it.
    """
    found: dict[str, bytes] = {}
    for path in sorted(tree.rglob("*")):
        place = PurePosixPath(path.relative_to(tree).as_posix())
        if not path.is_file() or _SKIPPED & set(place.parts) or place.suffix == ".pyc":
            continue
        if place.name.endswith(_NATIVE) or ".so." in place.name:
            raise ImageError(f"{place} is compiled code, and layers hold pure Python only")
        if len(place.parts) > 1 and place.parts[0].endswith(".dist-info") and place.name in _LEFT_OUT:
            continue
        found[str(place)] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in found.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _resolve(
    requirements: Path, find: Sequence[str], folder: Path, installed: set[Package]
) -> tuple[set[Package], set[Package]]:
    """Resolve the requirements for the guest: packages to pack, and packages it has already.

    pip evaluates conditional requirements for the Python that runs it. So packages that only the guest needs
    are requested by name, and packages that only the host needs are omitted.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - of the extra
    from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - the same

    extra: list[str] = []
    for _ in range(_MOST_ROUNDS):
        answer = folder / "report.json"
        target = ["--target", str(folder / "nowhere"), *_TARGET]
        dry = ["install", "--dry-run", "--ignore-installed", "--report", str(answer)]
        command = [*dry, *target, *find, "-r", str(requirements), *extra]
        said = _pip(command)
        plan = json.loads(answer.read_text(encoding="utf-8"))["install"]
        metadata = {_normal(one["metadata"]["name"]): one["metadata"] for one in plan}
        roots = {
            _normal(one["metadata"]["name"]): set(one.get("requested_extras", ()))
            for one in plan
            if one["requested"]
        }
        needed = _closure(roots, metadata, Requirement)
        _refuse_unfit(metadata, needed, SpecifierSet)
        for name in set(map(_normal, _BACKTRACKED.findall(said))) & needed.keys() & metadata.keys():
            _refuse_outdated(name, str(metadata[name]["version"]), said, command)
        missing = sorted(name for name in needed if name not in metadata)
        if not missing:
            packages = {Package(name, metadata[name]["version"]) for name in needed}
            return packages - installed, packages & installed
        extra = sorted({*extra, *(needed[name] for name in missing)})
    raise ImageError(f"the requirements do not settle; {', '.join(missing)} are asked for again and again")


def _closure(
    roots: Mapping[str, set[str]],
    metadata: Mapping[str, Mapping[str, object]],
    parse: Callable[[str], object],
) -> dict[str, str]:
    """Return the transitive dependencies of packages in the guest, each with its requirement."""
    needed = dict.fromkeys(roots, "")
    extras: dict[str, set[str]] = {name: set(wanted) for name, wanted in roots.items()}
    pending = list(roots)
    while pending:
        name = pending.pop()
        for text in metadata.get(name, {}).get("requires_dist", ()):  # type: ignore[attr-defined]  # JSON
            one = parse(text)
            marker = one.marker  # type: ignore[attr-defined]  # a Requirement
            if marker is not None and not any(
                marker.evaluate({**_GUEST, "extra": extra}) for extra in (extras[name] or {""})
            ):
                continue
            other, wanted = _normal(one.name), set(one.extras)  # type: ignore[attr-defined]  # the same
            if other not in needed or not wanted <= extras[other]:
                one.marker = None  # type: ignore[attr-defined]  # it holds
                needed.setdefault(other, str(one))
                extras[other] = extras.get(other, set()) | wanted
                pending.append(other)
    return needed


def _refuse_unfit(
    metadata: Mapping[str, Mapping[str, object]], needed: Iterable[str], parse: Callable[[str], object]
) -> None:
    for name in needed:
        wanted = str(metadata.get(name, {}).get("requires_python") or "")
        if not parse(wanted).contains(f"{GUEST_PYTHON}.0"):  # type: ignore[attr-defined]  # a SpecifierSet
            raise ImageError(f"{name} is for Python {wanted}, and the guest's is {GUEST_PYTHON}")


_GUEST = {
    "python_version": GUEST_PYTHON,
    "python_full_version": f"{GUEST_PYTHON}.0",
    "implementation_name": "cpython",
    "implementation_version": f"{GUEST_PYTHON}.0",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "wasi",
    "platform_system": "wasi",
    "platform_machine": "wasm32",
    "platform_release": "",
    "platform_version": "",
}
"""The guest's environment for conditional requirements."""


class NotPure(ImageError):
    """A package has no pure-Python wheel."""


def _refuse_outdated(name: str, taken: str, said: str, command: Sequence[str]) -> None:
    """Refuse a package of which pip chose an older version because the newest requires compiled code."""
    spelled = "[-_.]+".join(map(re.escape, name.split("-")))
    tried = re.search(rf"(?<![\w.-]){spelled}-(\d[^-\s]*)-\S*\.whl", said, re.IGNORECASE)
    if tried is None or tried[1] == taken:
        return
    try:
        _pip([*command, f"{name}=={tried[1]}"])
    except NotPure as error:
        raise NotPure(
            f"{name} {tried[1]} cannot be had, and {taken}, which is older, would be taken in its place "
            f"(ask for {name}=={taken} if you want that one): {error}"
        ) from error
    except ImageError:  # a genuine version conflict: the older one is the solution
        return


def _pip(arguments: Iterable[str]) -> str:
    """Run pip, and return its report."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_S, check=False)  # noqa: S603 - pip, with a list of arguments
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"pip found no solution within {_PIP_S:g} s: something that is needed has no pure-Python wheel, "
            "or does not go with the versions in the image; ask for fewer packages to see which"
        ) from error
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return said
    if "No module named pip" in said:
        raise ImageError("layers are resolved with pip, which is missing; install evocell[layers]")
    missing = sorted(set(_NOT_FOUND.findall(said)))
    if missing:
        raise NotPure(
            f"{', '.join(missing)}: there is no pure-Python wheel for Python {GUEST_PYTHON} (it is compiled, "
            "comes as source only, or does not exist), and layers hold nothing else; what is compiled must "
            "be part of the interpreter: evocell layer packages lists what is"
        )
    raise ImageError(f"the requirements cannot be met for the image: {_causes(said)}")


def _causes(said: str) -> str:
    """Return pip's explanation of a conflict, or else its error."""
    _, found, rest = said.partition(_CAUSE)
    lines = [line.strip() for line in (rest if found else said).splitlines()]
    if found:
        named = [line for line in lines if "depends on" in line or "requested" in line]
        return "; ".join(named[:_SHOWN_CAUSES]).replace("The user requested (constraint)", "every image has")
    return " ".join(line for line in lines if line.startswith("ERROR")) or " ".join(lines[-3:])


def _source_options(requirements: Path, folder: Path) -> list[str]:
    """Return a requirements file's options on package sources, for a run without its lines."""
    kept = folder / "options.txt"
    lines = requirements.read_text(encoding="utf-8").splitlines()
    options = [
        line
        for line in map(str.strip, lines)
        if line.startswith("-") and not line.startswith(("-r", "-e", "-c", *_NAMING))
    ]
    kept.write_text(
        "".join(_absolute(line, requirements.parent) + "\n" for line in options), encoding="utf-8"
    )
    return ["-r", str(kept)] if options else []


def _absolute(line: str, base: Path) -> str:
    """Make a local directory in a line, relative to the requirements file, absolute."""
    option, _, value = line.replace("=", " ", 1).partition(" ")
    place = base / value.strip()
    return f"{option} {place.resolve()}" if value and place.exists() else line


def _metadata() -> list[tuple[str, str, bytes]]:
    found = []
    with zipfile.ZipFile(locate().stdlib_zip) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA"):
                text = archive.read(name)
                head = BytesHeaderParser().parsebytes(text)
                found.append((str(head["Name"]), str(head["Version"]), text))
    return found


def _write_stubs(folder: Path) -> Path:
    """Write an empty wheel for each package of the image."""
    folder.mkdir()
    for name, version, text in _metadata():
        stem = f"{_normal(name).replace('-', '_')}-{version}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{stem}.dist-info/METADATA", text)
            archive.writestr(
                f"{stem}.dist-info/WHEEL",
                "Wheel-Version: 1.0\nGenerator: evocell\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
            archive.writestr(f"{stem}.dist-info/RECORD", "")
    return folder


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
