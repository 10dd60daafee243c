"""Ancestry, against the plainest way of finding it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.store import lineage as lineage_module
from evocell.store.changes import diff_files
from evocell.store.lineage import LineageTracker
from evocell.store.trees import to_dot, to_json


def family_tree(parents):
    """Make a tracker of lists of earlier indices, one for each individual."""
    tracker = LineageTracker()
    for child, its in enumerate(parents):
        tracker.record(f"i{child}", [f"i{parent}" for parent in its])
    return tracker


def up(parents, start):
    found, waiting = set(), [start]
    while waiting:
        for parent in parents[waiting.pop()]:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


@st.composite
def histories(draw):
    n = draw(st.integers(1, 25))
    return [
        draw(st.lists(st.integers(0, child - 1), max_size=4, unique=True)) if child else []
        for child in range(n)
    ]


@given(histories())
def test_ancestors_and_descendants_are_those_of_a_plain_search(parents):
    tracker = family_tree(parents)
    above = [up(parents, one) for one in range(len(parents))]
    for one in range(len(parents)):
        assert tracker.ancestors(f"i{one}") == [f"i{other}" for other in sorted(above[one], reverse=True)]
        below = [other for other in range(len(parents)) if one in above[other]]
        assert tracker.descendants(f"i{one}") == [f"i{other}" for other in below]


@given(histories(), st.data())
def test_the_common_ancestor_is_the_youngest_there_is(parents, data):
    tracker = family_tree(parents)
    one, other = (data.draw(st.integers(0, len(parents) - 1)) for _ in range(2))
    common = (up(parents, one) | {one}) & (up(parents, other) | {other})
    expected = f"i{max(common)}" if common else None
    assert tracker.common_ancestor(f"i{one}", f"i{other}") == expected


@given(histories())
def test_depth_is_the_longest_way_to_a_seed(parents):
    tracker = family_tree(parents)
    depths = []
    for its in parents:
        depths.append(1 + max(depths[parent] for parent in its) if its else 0)
    assert [tracker.depth(f"i{one}") for one in range(len(parents))] == depths


def test_an_individual_is_known_with_all_that_was_said_of_it():
    tracker = LineageTracker()
    tracker.record("a")
    tracker.record("b", ["a"], mutation_type="mutation", generation=2, metadata={"operator": "swap"})
    tracker.annotate("b", {"line": 3})
    tracker.set_version("b", "digest")
    known = tracker.get("b")
    assert (known.parent_ids, known.mutation_type, known.generation, known.depth) == (
        ("a",),
        "mutation",
        2,
        1,
    )
    assert known.version == "digest"
    assert known.metadata == {"operator": "swap", "line": 3}


def test_a_line_follows_first_parents():
    tracker = family_tree([[], [], [0, 1], [1, 2], [3]])
    assert [one.id for one in tracker.line("i4")] == ["i1", "i3", "i4"]


def test_a_family_is_everybody_above_oldest_first_and_bounded():
    tracker = family_tree([[], [], [0], [2], [1]])
    assert [one.id for one in tracker.family(["i3", "i4"])] == ["i0", "i1", "i2", "i3", "i4"]
    assert [one.id for one in tracker.family(["i3"], most=2)] == ["i2", "i3"]
    assert tracker.family([]) == []


def test_an_id_that_is_used_again_is_somebody_else():
    tracker = LineageTracker()
    first = tracker.record("a")
    tracker.record("b", ["a"])
    again = tracker.record("a", ["b"])
    assert again != first
    assert tracker.ancestors("a") == ["b", "a"]
    assert tracker.descendants("a") == []


def test_a_parent_nobody_has_heard_of_is_known_by_its_id():
    tracker = LineageTracker()
    tracker.record("b", ["stranger", "stranger"])
    assert tracker.ancestors("b") == ["stranger"]
    assert tracker.get("stranger").number == 0
    assert tracker.depth("b") == 1


def test_strangers_are_refused_by_name():
    tracker = family_tree([[]])
    for ask in (tracker.get, tracker.ancestors, tracker.descendants, tracker.line):
        with pytest.raises(SandboxNotFound, match="nobody"):
            ask("nobody")
    with pytest.raises(SandboxNotFound, match="nobody"):
        tracker.common_ancestor("i0", "nobody")
    assert tracker.depth("nobody") is None


def test_passing_individuals_without_relatives_are_forgotten(monkeypatch):
    monkeypatch.setattr(lineage_module, "LOOSE", 3)
    tracker = LineageTracker()
    tracker.record("parent", kept=False)
    tracker.record("child", ["parent"], kept=False)
    tracker.record("kept")
    for number in range(10):
        tracker.record(f"loose{number}", kept=False)
    assert tracker.ancestors("child") == ["parent"]
    assert tracker.depth("kept") == 0
    assert tracker.depth("loose0") is None
    assert tracker.depth("loose9") == 0
    assert len(tracker) == 6


def test_kept_individuals_are_forgotten_once_they_are_released(monkeypatch):
    monkeypatch.setattr(lineage_module, "LOOSE", 3)
    tracker = LineageTracker()
    numbers = {name: tracker.record(name) for name in ("noted", "parent", "borne again", "gone")}
    tracker.annotate("noted", {"operator": "swap"})
    child = tracker.record("child", ["parent"])
    tracker.record("borne again")
    for name, number in [*numbers.items(), ("child", child)]:
        tracker.release(name, number)
    for number in range(10):
        tracker.release(f"other{number}", tracker.record(f"other{number}"))
    assert tracker.get("noted").metadata == {"operator": "swap"}
    assert tracker.ancestors("child") == ["parent"]
    assert tracker.depth("borne again") == 0
    assert tracker.depth("gone") is None
    assert tracker.depth("other0") is None
    assert tracker.depth("other9") == 0


def test_a_family_as_graphviz_and_json():
    tracker = LineageTracker()
    tracker.record('say "hi"\\')
    tracker.record("child", ['say "hi"\\'], mutation_type="mutation", generation=1, metadata={"at": 3})
    dot = to_dot(tracker.family(["child"]))
    assert '  "say \\"hi\\"\\\\" -> "child";' in dot.splitlines()
    assert dot.startswith('digraph "lineage" {')
    assert dot.count("->") == 1
    first, second = json.loads(to_json(tracker.family(["child"])))
    assert first["id"] == 'say "hi"\\'
    assert (second["parent_ids"], second["metadata"], second["depth"]) == (['say "hi"\\'], {"at": 3}, 1)


def test_what_changed_without_a_store_says_what_is_known():
    tracker = LineageTracker()
    tracker.record("a")
    tracker.record("b", ["a"], mutation_type="mutation", metadata={"operator": "swap"})
    change = tracker.what_changed("b")
    assert (change.parent_id, change.mutation_type, change.diff) == ("a", "mutation", "")
    assert change.metadata == {"operator": "swap"}
    assert tracker.what_changed("a").parent_id is None
    with pytest.raises(ConfigurationError):
        tracker.what_changed("a", "a")


def test_the_difference_of_files():
    before = {"a.py": "x = 1\ny = 2\n", "gone.py": "z\n", "big.py": "x\n" * 6000, "raw": None}
    after = {"a.py": "x = 1\ny = 3\n", "big.py": "y\n" * 6000, "raw": "text"}
    diff = diff_files(before, after)
    assert "--- a/a.py\n+++ b/a.py\n" in diff
    assert "-y = 2\n+y = 3\n" in diff
    assert "-z\n" in diff
    assert "big.py differs (6,000 lines before, 6,000 after)\n" in diff
    assert "raw differs and is no text\n" in diff
    assert diff_files(after, after) == ""
