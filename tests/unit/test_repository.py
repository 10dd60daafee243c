"""The files a newcomer meets first agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = dict(
    line.split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
)
EXTRAS = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
DIRECT = [
    requirement
    for requirement in map(Requirement, dict.fromkeys(PROJECT["dependencies"] + EXTRAS))
    if requirement.name != PROJECT["name"]  # an extra that takes another one in
]


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_the_lock_holds_a_version_within_the_bounds(requirement):
    assert requirement.specifier.contains(LOCKED[requirement.name])


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_every_dependency_has_its_reason_in_the_docs(requirement):
    assert f"`{requirement.name}`" in (ROOT / "docs" / "dependencies.md").read_text()


def test_the_lock_names_versions_only():
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in LOCKED.values())


@pytest.mark.parametrize("recipe", ["demo", "test"])
def test_the_readme_starts_with_the_locked_just(recipe):
    command = (
        f"python3 -m venv .venv && .venv/bin/pip install -q rust-just=={LOCKED['rust-just']} "
        f"&& .venv/bin/just {recipe}"
    )
    assert command in (ROOT / "README.md").read_text().splitlines()


def test_the_changelog_has_a_place_for_this_version():
    assert f"\n## [{PROJECT['version']}] - " in (ROOT / "CHANGELOG.md").read_text()
