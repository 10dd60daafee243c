import pytest

from evocell.errors import ConfigurationError
from evocell.store import audit as audit_module
from evocell.store.audit import AuditLog, read_entries
from evocell.store.database import open_reader
from evocell.store.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "evocell.db") as made:
        yield made


def test_what_is_noted_is_told_oldest_first(store):
    log = AuditLog(store, 1, max_entries=100)
    log.note("allowed", "imports math", version="v", profile="medium")
    log.note("killed", "fuel: stopped", sandbox_id="a", version="v")
    log.note("refused", "no", sandbox_id="b", profile="high")

    found = log.entries()

    assert [entry.kind for entry in found] == ["allowed", "killed", "refused"]
    assert [entry.seq for entry in found] == sorted(entry.seq for entry in found)
    assert (found[1].sandbox_id, found[1].version, found[1].profile, found[1].detail) == (
        "a",
        "v",
        "",
        "fuel: stopped",
    )
    assert found[0].at <= found[2].at


def test_questions(store):
    log = AuditLog(store, 1, max_entries=100)
    for number in range(10):
        log.note("killed" if number % 2 else "crashed", str(number), sandbox_id=f"s{number % 3}")
    everything = log.entries()

    assert [entry.detail for entry in log.entries(kind="killed")] == ["1", "3", "5", "7", "9"]
    assert [entry.detail for entry in log.entries(sandbox_id="s1")] == ["1", "4", "7"]
    assert [entry.detail for entry in log.entries(limit=2)] == ["8", "9"]
    assert log.entries(after=everything[6].seq) == everything[7:]
    assert log.entries(since=everything[4].at) == [
        entry for entry in everything if entry.at >= everything[4].at
    ]
    assert log.entries(kind="killed", sandbox_id="nobody") == []


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"kind": "killed"}, "audit_by_kind"),
        ({"sandbox_id": "s"}, "audit_by_sandbox"),
        ({"sandbox_id": "s", "kind": "killed"}, "audit_by_"),
    ],
)
def test_a_question_about_few_entries_does_not_read_them_all(store, wanted, index):
    (question, given) = audit_module._question(**wanted)
    plan = store.query(f"EXPLAIN QUERY PLAN {question}", given)
    assert any(index in row[3] for row in plan), plan


@pytest.mark.parametrize("wanted", [{}, {"kind": "allowed"}, {"sandbox_id": ""}])
def test_entries_of_most_candidates_are_in_no_index(store, wanted):
    log = AuditLog(store, 1, max_entries=100)
    log.note("allowed", "one")
    log.note("allowed", "two", sandbox_id="s")
    log.note("refused", "three")
    expected = {"allowed": ["one", "two"], "": ["one", "three"]}

    key = next(iter(wanted.values()), None)

    assert [entry.detail for entry in log.entries(**wanted)] == expected.get(key, ["one", "two", "three"])


@pytest.mark.parametrize(
    "wrong", [{"kind": "x'; DROP TABLE audit; --"}, {"limit": 0}, {"limit": 10**6}, {"limit": "1"}]
)
def test_a_question_that_makes_no_sense_is_refused(store, wrong):
    with pytest.raises(ConfigurationError):
        AuditLog(store, 1, max_entries=100).entries(**wrong)


def test_the_oldest_go_first_and_numbers_are_never_used_again(store):
    log = AuditLog(store, 1, max_entries=50)
    for number in range(2_500):
        log.note("allowed", str(number))
    log.trim()

    found = log.entries(limit=10_000)

    assert [entry.detail for entry in found] == [str(number) for number in range(2_450, 2_500)]
    log.note("allowed", "next")
    assert log.entries()[-1].seq == 2_501


def test_a_variants_text_is_cut_and_made_printable(store):
    log = AuditLog(store, 1, max_entries=50)
    log.note("refused", "\x1b[31mred\n\ud800" + "x" * 10_000, sandbox_id="s\n1")

    (entry,) = log.entries()

    assert len(entry.detail) == 500
    assert entry.detail.startswith("?[31mred??xx")
    assert entry.sandbox_id == "s?1"


def test_it_outlives_its_engine_and_is_read_beside_a_writer(tmp_path):
    for run in (1, 2):
        with Store(tmp_path / "evocell.db") as store:
            log = AuditLog(store, run, max_entries=50)
            log.note("killed", f"run {run}")
            log.entries()
            reader = open_reader(tmp_path)
            assert [entry.detail for entry in read_entries(reader, kind="killed")][-1] == f"run {run}"
            reader.close()
    with Store(tmp_path / "evocell.db") as store:
        assert [entry.detail for entry in AuditLog(store, 3, max_entries=50).entries()] == ["run 1", "run 2"]
