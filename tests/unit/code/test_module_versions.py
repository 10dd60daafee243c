"""The ModuleVersionManager: numbers, checksums, dependencies, and what is kept."""

from __future__ import annotations

import pytest

from evocell.code.compiler import CompiledUnit, assemble
from evocell.code.module_versions import ModuleVersionManager, module_files
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.errors import ConfigurationError

TREE = {
    "program.py": "import math",
    "pkg/__init__.py": "",
    "pkg/rate.py": "import json, os.path",
    "pkg/data.txt": "some",
    "data.json": "{}",
}


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "code")


@pytest.fixture
def trees(store):
    return TreeReferences(store)


@pytest.fixture
def manager(trees):
    return ModuleVersionManager(trees, keep=3)


@pytest.fixture
def load(store, manager):
    def load(files, mutation_type="mutation", sandbox="a"):
        tree = normalise(files)
        units = [
            CompiledUnit(path, text, tuple(sorted(set(text.decode().replace(",", "").split()) - {"import"})))
            for path, text in tree.python_files
        ]
        code = assemble(store.put(tree), tree, "/app", units)
        return manager.register(sandbox, code, mutation_type=mutation_type)

    return load


def test_the_first_load_makes_version_one_of_every_module(manager, load):
    made = load(TREE, "seed")

    assert manager.modules("a") == ("pkg", "pkg.rate", "program")
    assert {version.module for version in made} == set(manager.modules("a"))
    rate = manager.current("a", "pkg.rate")
    assert (rate.number, rate.parent_version, rate.restores, rate.mutation_type) == (1, None, None, "seed")
    assert (rate.sandbox_id, rate.files, rate.dependencies) == ("a", ("pkg/rate.py",), ("json", "os.path"))
    package = manager.current("a", "pkg")
    assert package.files == ("pkg/__init__.py", "pkg/data.txt", "pkg/rate.py")
    assert package.dependencies == rate.dependencies
    assert len(package.checksum) == 64
    assert package.checksum != rate.checksum


def test_only_what_changed_gets_a_new_version(manager, load):
    load(TREE, "seed")

    made = load(TREE | {"pkg/rate.py": "import re"}, "crossover")

    assert {version.module: version.number for version in made} == {"pkg": 2, "pkg.rate": 2}
    assert (made[0].parent_version, made[0].mutation_type) == (1, "crossover")
    assert manager.current("a", "program").number == 1
    assert load(TREE | {"pkg/rate.py": "import re", "data.json": "[]"}) == ()


def test_data_of_a_package_is_a_part_of_it(manager, load):
    load(TREE)

    assert [version.module for version in load(TREE | {"pkg/data.txt": "other"})] == ["pkg"]


def test_a_rollback_says_which_version_it_restores(manager, load):
    load(TREE)
    load(TREE | {"program.py": "import re"})

    (made,) = load(TREE, "rollback")

    assert (made.number, made.parent_version, made.restores) == (3, 2, 1)
    assert made.checksum == manager.get("a", "program", 1).checksum


def test_a_module_that_comes_back_goes_on_counting(manager, load):
    load(TREE)
    load({"other.py": ""})
    with pytest.raises(ConfigurationError, match="no module 'program'; it has other"):
        manager.current("a", "program")
    assert [version.number for version in manager.history("a", "program")] == [1]

    load(TREE)

    assert [version.number for version in manager.history("a", "program")] == [1, 2]
    assert manager.current("a", "program").parent_version == 1


def test_so_many_versions_are_kept_and_the_trees_of_others_are_let_go(manager, load, trees, store):
    for number in range(6):
        load({"program.py": f"x{number}"})

    kept = manager.history("a", "program")
    assert [version.number for version in kept] == [4, 5, 6]
    assert kept[0].parent_version == 3
    assert trees.held_by("a") == frozenset()
    assert trees.held_by("sandbox:a") == {version.digest for version in kept}
    assert trees.remove_unused().trees == 3
    with pytest.raises(ConfigurationError, match="no version 2 of module 'program'; it keeps 4, 5, 6"):
        manager.get("a", "program", 2)


def test_the_tree_that_is_loaded_is_held_even_if_no_module_changed(manager, load, trees):
    load(TREE)
    load(TREE | {"data.json": "1"})

    assert len(trees.held_by("sandbox:a")) == 2


def test_sandboxes_have_histories_of_their_own(manager, load, trees):
    load(TREE)
    load(TREE | {"program.py": "y"}, sandbox="b")

    assert manager.current("b", "program").number == 1
    manager.forget("a")

    assert trees.held_by("sandbox:a") == frozenset()
    assert len(trees.held_by("sandbox:b")) == 1
    with pytest.raises(ConfigurationError, match="no module at all"):
        manager.history("a", "program")
    load(TREE)
    assert manager.current("a", "program").number == 1


@pytest.mark.parametrize("number", [0, -1, True, 2, None, "1"])
def test_a_version_that_is_not_there(manager, load, number):
    load(TREE)

    with pytest.raises(ConfigurationError, match="it keeps 1 "):
        manager.get("a", "program", number)


def test_which_files_belong_to_which_module():
    paths = [
        "a.py",
        "a/__init__.py",
        "b/c.py",
        "d/__init__.py",
        "d/e/__init__.py",
        "d/e/f.py",
        "d/e/x.bin",
        "my-tool.py",
        "top.txt",
        "n-o/__init__.py",
        "__init__.py",
    ]

    assert module_files(paths) == {
        "a": ("a/__init__.py",),
        "b.c": ("b/c.py",),
        "d": ("d/__init__.py", "d/e/__init__.py", "d/e/f.py", "d/e/x.bin"),
        "d.e": ("d/e/__init__.py", "d/e/f.py", "d/e/x.bin"),
        "d.e.f": ("d/e/f.py",),
    }
