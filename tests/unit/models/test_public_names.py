"""Names that are imported when asked for are all there, and say so when they are not."""

import subprocess
import sys

import pytest

import evocell
from evocell import models

PACKAGES = [evocell, models]


@pytest.mark.parametrize("package", PACKAGES, ids=["evocell", "models"])
def test_every_public_name_is_there(package):
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_the_places_of_models_are_those_of_the_public_names():
    assert sorted(models._HOMES) == sorted(models.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=["evocell", "models"])
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_that_name'"):
        _ = package.nothing_of_that_name


def test_a_worker_process_starts_without_what_it_does_not_run():
    program = (
        "import sys, evocell.guests.main; "
        "print([name for name in ('evocell.api', 'evocell.evaluation', 'evocell.sandboxes', 'evocell.models.fitness', 'psutil', "
        "'rich', 'numpy', 'sqlite3', 'evocell_runtime.build') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
