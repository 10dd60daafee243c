"""The text for whoever writes code for the guest."""

from evocell.api.prompt_notes import guest_notes
from evocell.config import Config


def test_what_the_guest_is_like():
    info = {"python": "3.15.0", "packages": {"numpy": "2.5.2", "attrs": "1"}}
    text = guest_notes(info, Config(default_max_fuel=7, blocked_modules=("socket",)))
    assert "CPython 3.15.0" in text
    assert "attrs 1, numpy 2.5.2" in text
    assert "may do 7 units of work" in text
    assert "virtual" in text
    assert "imported, which raises ImportError: socket" in text
    assert "Decimal is 40 to 90 times slower" in text
    assert "n_jobs=1" in text
    assert "nothing can be written but to /dev/null" in text
    assert "real" in guest_notes({}, Config(profile="realtime", blocked_modules=()))
