"""A call whose byte code is filled in by the worker is the call that the engine would have sent, to the byte."""

from pathlib import Path

import pytest
from attrs import evolve

from evocell.code.compiler import CompiledUnit, CompiledVersion, assemble
from evocell.code.snapshots import VersionSnapshot
from evocell.code.sources import normalise
from evocell.execution.follow_ups import CompiledFile, dump_marks
from evocell.execution.interface import CallJob, CompileJob, FollowUpJob
from evocell.models import Limits
from evocell.models.security import policy_for
from evocell.workers import requests
from evocell.workers.requests import call_request, follow_up_splice
from evocell_guest.requests import read_request
from evocell_guest.values import encode

SNAPSHOT = VersionSnapshot("d" * 64, Path("/versions/d"))
HARNESS = CompiledVersion("h" * 64, Path("/versions/h"), b"the harness" * 1000)
PAYLOAD = encode([[1, 2], {}])
POLICIES = {
    "trusted": None,
    **{name: policy_for(name, blocked=["socket"]) for name in ("low", "medium", "high")},
    "reporting": policy_for("medium", blocked=["socket"], enforce=False),
    "with processes": policy_for("medium", blocked=["socket"]).with_processes(),
}
CODES = [b"", b"\x00", b"code" * 10, bytes(255), bytes(256), bytes(range(256)) * 1000]
MARKS = [
    (),
    (("a", 0),),
    (("a", 1), ("b", -1), ("a", 2)),
    (("é" * 300, 2**31), ("x", 2**63 - 1), ("y", -(2**63))),
    tuple((f"n{number}", number) for number in range(300)),
    (("", 5),),
]


def compiling(files, policy=None):
    return CompileJob(tree=normalise(files), policy=policy)


def follow_up(**more):
    given = {"entry": "program:solve", "payload": PAYLOAD, "seed": 5, "limits": Limits()}
    return FollowUpJob(**given | more)


def whole(job, compile_job, code, marks=(), **more):
    """The parts of the same call, as the engine makes them once it has the byte code."""
    ((path, _),) = compile_job.tree.python_files
    version = assemble(
        SNAPSHOT,
        compile_job.tree,
        compile_job.root,
        [CompiledUnit(path, code, marks=marks)],
        compile_job.policy,
    )
    given = {name: getattr(job, name) for name in ("entry", "payload", "seed", "limits", "harness")}
    return call_request(CallJob(code=version, **given | more), load=True)


def check(job, compile_job):
    splice = follow_up_splice(job, compile_job)
    assert splice is not None
    for code, marks in zip(CODES, MARKS, strict=True):
        body = b"".join(whole(job, compile_job, code, marks))
        assert b"".join(splice.filled(CompiledFile(code, marks))) == body
        assert splice.fits(body)
    return splice


@pytest.mark.parametrize("harness", [None, HARNESS, evolve(HARNESS, code=b"")], ids=["none", "some", "empty"])
@pytest.mark.parametrize("policy", POLICIES)
def test_with_and_without_harness_under_every_policy(policy, harness):
    check(follow_up(harness=harness), compiling({"program.py": "x"}, POLICIES[policy]))


@pytest.mark.parametrize(
    "path",
    [
        "program.py",
        "a/b/c.py",
        "a/__init__.py",
        "a/b/__init__.py",
        "ünïcode.py",
        "x" * 200 + ".py",
        "0.py",
        "code.py",
    ],
)
def test_one_file_of_any_name(path):
    check(follow_up(), compiling({path: "x", "data.txt": "y", "a/table.csv": "1,2"}, POLICIES["medium"]))


@pytest.mark.parametrize("payload", [b"", bytes(4096), bytes(4097), bytes(3_000_000)], ids=len)
def test_arguments_of_any_length(payload):
    splice = check(follow_up(payload=payload, harness=HARNESS), compiling({"program.py": "x"}))
    assert not payload or any(part is payload for part in splice.after)  # a part of its own, so sent once


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_any_seed(seed):
    check(follow_up(seed=seed), compiling({"program.py": "x"}))


@pytest.mark.parametrize("path", ["a.b.py", "__init__.py"])
def test_a_file_that_cannot_be_imported_has_no_place(path):
    assert follow_up_splice(follow_up(), compiling({path: "x"})) is None


def test_what_looks_like_the_place_elsewhere(monkeypatch):
    """In the arguments it does no harm; in what stands around the code the call is left to the engine."""
    job = follow_up(
        payload=requests._HOLE, harness=evolve(HARNESS, code=requests._HOLE), entry="program:solve"
    )
    check(job, compiling({"program.py": "x"}))
    policy = POLICIES["medium"]
    hidden = {"import": ("s" + len(requests._HOLE).to_bytes(4, "little").decode() + requests._HOLE.decode(),)}
    assert follow_up_splice(job, compiling({"program.py": "x"}, evolve(policy, events=hidden))) is None


def test_code_that_holds_the_place():
    splice = follow_up_splice(follow_up(), compiling({"program.py": "x"}))
    code = requests._HOLE * 3
    assert splice.fits(b"".join(whole(follow_up(), compiling({"program.py": "x"}), code)))


def test_the_agent_reads_what_was_filled_in():
    job, compile_job = follow_up(harness=HARNESS), compiling({"program.py": "x"}, POLICIES["high"])
    filled = b"".join(follow_up_splice(job, compile_job).filled(CompiledFile(b"code", (("a", 7),))))
    asked = read_request(filled)
    assert (asked["entry"], asked["seed"], asked["args"]) == ("program:solve", 5, PAYLOAD)
    assert asked["harness"] == HARNESS.code
    version = assemble(
        SNAPSHOT,
        compile_job.tree,
        "/app",
        [CompiledUnit("program.py", b"code", marks=(("a", 7),))],
        compile_job.policy,
    )
    assert asked["code"] == version.code


CHANGES = {
    "arguments": {"payload": encode([[1, 3], {}])},
    "longer arguments": {"payload": PAYLOAD + b"\xc0"},
    "no arguments": {"payload": b""},
    "seed": {"seed": 6},
    "entry": {"entry": "program:other"},
    "caps": {"limits": Limits(payload_bytes=1000)},
    "harness": {"harness": evolve(HARNESS, code=b"the harnesz" * 1000)},
    "no harness": {"harness": None},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_call_does_not_fit(change):
    job, compile_job = follow_up(harness=HARNESS), compiling({"program.py": "x"}, POLICIES["medium"])
    splice = follow_up_splice(job, compile_job)
    for code in CODES:
        assert not splice.fits(b"".join(whole(job, compile_job, code, **CHANGES[change])))


@pytest.mark.parametrize(
    "other",
    [
        compiling({"program.py": "x"}, POLICIES["high"]),
        compiling({"program.py": "x"}),
        compiling({"prograw.py": "x"}, POLICIES["medium"]),
        evolve(compiling({"program.py": "x"}, POLICIES["medium"]), root="/other"),
    ],
    ids=["policy", "no policy", "path", "root"],
)
def test_code_compiled_otherwise_does_not_fit(other):
    job = follow_up()
    splice = follow_up_splice(job, compiling({"program.py": "x"}, POLICIES["medium"]))
    for code in CODES:
        assert not splice.fits(b"".join(whole(job, other, code)))


def test_a_body_cut_or_with_a_byte_changed_does_not_fit():
    job, compile_job = follow_up(), compiling({"program.py": "x"}, POLICIES["low"])
    splice, code, marks = follow_up_splice(job, compile_job), b"the code", (("a", 7),)
    body = b"".join(whole(job, compile_job, code, marks))
    assert splice.fits(body)
    start = body.index(code, len(splice.before))
    marked = dump_marks({"program": dict(marks)})
    marks_start = body.index(marked, start)
    for at in range(len(body)):
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        # Code and marks themselves are the compiler's.
        theirs = start <= at < start + len(code) or marks_start <= at < marks_start + len(marked)
        assert splice.fits(changed) == theirs
        assert not splice.fits(body[:at])
        assert not splice.fits(body[:at] + body[at + 1 :])
        assert not splice.fits(body[:at] + b"\x00" + body[at:])
    assert not splice.fits(b"")


def test_a_call_without_the_code_does_not_fit():
    job, compile_job = follow_up(), compiling({"program.py": "x"})
    splice = follow_up_splice(job, compile_job)
    call = CallJob(
        code=CompiledVersion("d", Path("/versions/d"), b""),
        entry=job.entry,
        payload=job.payload,
        seed=job.seed,
        limits=job.limits,
    )
    assert not splice.fits(b"".join(call_request(call, load=True)))
    assert not splice.fits(b"".join(call_request(call, load=False)))
