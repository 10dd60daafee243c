"""Layers: resolved for the guest, pure Python or refused by name, and the same bytes every time."""

from __future__ import annotations

import zipfile

import pytest

from evocell.cli.main import main
from evocell_runtime.errors import ImageError
from evocell_runtime.image import open_image
from evocell_runtime.layers import Package, build_layer, pack_tree, provided_packages
from evocell_runtime.spec import ImageSpec


@pytest.fixture
def wheels(tmp_path):
    """Write wheels into a directory, and a requirements file that looks nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()

    class Wheels:
        def add(self, name, version="1.0", *, requires=(), tag="py3-none-any", python="", files=None):
            stem = f"{name.replace('-', '_')}-{version}"
            lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
            lines += [f"Requires-Dist: {one}" for one in requires]
            lines += [f"Requires-Python: {python}"] if python else []
            with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as archive:
                for path, text in (
                    files or {f"{name.replace('-', '_')}/__init__.py": f"v = '{version}'"}
                ).items():
                    archive.writestr(path, text)
                archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
                archive.writestr(
                    f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
                )
                archive.writestr(f"{stem}.dist-info/RECORD", "")

        def build(self, *lines):
            requirements = tmp_path / "requirements.txt"
            requirements.write_text(
                "\n".join(["--no-index", "--find-links wheels", *lines]) + "\n", encoding="utf-8"
            )
            return build_layer(requirements, tmp_path / "layer.zip")

    return Wheels()


def names(packages):
    return [package.name for package in packages]


def members(layer):
    with zipfile.ZipFile(layer.path) as archive:
        return archive.namelist()


def test_dependencies_come_along_and_data_files_and_metadata_stay(wheels):
    wheels.add("first", requires=["second>=1"], files={"first/__init__.py": "", "first/data.toml": "x = 1"})
    wheels.add("second", "2.0")

    layer = wheels.build("first")

    assert layer.packages == (Package("first", "1.0"), Package("second", "2.0"))
    assert {"first/data.toml", "first-1.0.dist-info/METADATA", "second/__init__.py"} <= set(members(layer))
    assert not any(name.endswith(("RECORD", "INSTALLER", ".pyc")) for name in members(layer))


@pytest.mark.slow
def test_the_same_packages_give_the_same_bytes_and_so_the_same_image(wheels):
    wheels.add("first")
    layer = wheels.build("first").path
    one, identity = layer.read_bytes(), ImageSpec(warm=(), layers=(layer,)).image_id()
    assert wheels.build("first").path.read_bytes() == one

    wheels.add("first", "1.1")

    assert ImageSpec(warm=(), layers=(wheels.build("first").path,)).image_id() != identity


def test_what_the_image_has_is_not_packed_again(wheels):
    wheels.add("first", requires=["numpy>=2", "python-dateutil"])

    layer = wheels.build("first")

    assert names(layer.packages) == ["first"]
    assert {"numpy", "python-dateutil", "six"} == set(names(layer.provided))
    assert Package("numpy", "2.5.2") in provided_packages()


@pytest.mark.slow
def test_conditional_requirements_are_the_guests_not_the_hosts(wheels):
    wheels.add(
        "first",
        requires=[
            'second; python_version >= "3.14"',
            'third; python_version < "3.12"',
            'fourth; sys_platform == "linux"',
            'fifth; extra == "more"',
        ],
    )
    for name in ("second", "third", "fourth", "fifth"):
        wheels.add(name)

    assert names(wheels.build("first").packages) == ["first", "second"]
    assert names(wheels.build("first[more]").packages) == ["fifth", "first", "second"]


def test_compiled_wheels_are_refused_by_name(wheels):
    wheels.add("native", tag="cp315-cp315-manylinux_2_28_x86_64")
    with pytest.raises(ImageError, match=r"native: there is no pure-Python wheel for Python 3\.15"):
        wheels.build("native")

    wheels.add("first", requires=["native"])
    with pytest.raises(ImageError, match="native"):
        wheels.build("first")


def test_an_older_version_is_not_taken_for_want_of_what_is_compiled(wheels):
    wheels.add("first", "0.1")
    wheels.add("first", "2.0", requires=["native"])

    with pytest.raises(ImageError, match=r"first 2\.0 cannot be had, and 0\.1, which is older.*native"):
        wheels.build("first")
    assert wheels.build("first==0.1").packages == (Package("first", "0.1"),)


def test_a_wheel_that_claims_to_be_pure_and_is_not(wheels):
    wheels.add("liar", files={"liar/__init__.py": "", "liar/core.cpython-315-x86_64-linux-gnu.so": "ELF"})

    with pytest.raises(ImageError, match=r"liar/core.*\.so is compiled code"):
        wheels.build("liar")


def test_what_does_not_go_with_the_image(wheels):
    with pytest.raises(ImageError, match=r"numpy<2; every image has numpy==2\.5\.2"):
        wheels.build("numpy<2")
    wheels.add("old", python="<3.10")
    with pytest.raises(ImageError, match=r"old is for Python <3\.10, and the guest's is 3\.15"):
        wheels.build("old")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ImageError, match=r"there is no file .*none\.txt"):
        build_layer(tmp_path / "none.txt", tmp_path / "layer.zip")


def test_the_command(wheels, tmp_path, capsys):
    wheels.add("first", requires=["numpy"])
    wheels.build("first")

    assert main(["layer", "build", str(tmp_path / "requirements.txt"), "-o", str(tmp_path / "out.zip")]) == 0

    printed = capsys.readouterr().out
    assert "in the layer" in printed
    assert "in every image" in printed
    assert f"EVOCELL_LAYERS={tmp_path / 'out.zip'}" in printed
    assert (tmp_path / "out.zip").is_file()
    assert main(["layer", "packages"]) == 0
    assert "numpy 2.5.2" in capsys.readouterr().out.splitlines()
    assert main(["layer", "build", str(tmp_path / "none.txt")]) == 2


@pytest.mark.slow
def test_a_guest_imports_from_its_layer(wheels, cache, run):
    wheels.add("first", requires=["second"], files={"first/__init__.py": "from second import v"})
    wheels.add("second", "2.0")
    layer = wheels.build("first")
    image = open_image(ImageSpec(warm=("first",), layers=(layer.path,)), cache)
    guest = image.fork()
    try:
        program = "import first, importlib.metadata as m\nprint(first.v, m.version('second'), flush=True)"
        assert run(guest, program).stdout == b"2.0 2.0\n"
        assert image.manifest.layers == ("layer.zip",)
    finally:
        guest.close()
        image.close()


def test_packing_is_reproducible_whatever_the_times_and_the_order(tmp_path):
    for number, names_ in enumerate((("a", "b"), ("b", "a"))):
        for name in names_:
            place = tmp_path / str(number) / name
            place.mkdir(parents=True)
            (place / "__init__.py").write_text(name, encoding="utf-8")

    assert pack_tree(tmp_path / "0") == pack_tree(tmp_path / "1")
