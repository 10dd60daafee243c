"""The demo's promises, kept by a small real run: repeatable to the byte, and no saboteur gets away."""

import json

import pytest

from evocell.cli.main import main

ARGUMENTS = ["demo", "--json", "--seed", "3", "--generations", "2", "--population", "10"]


def without_clocks(value):
    if isinstance(value, dict):
        return {
            key: without_clocks(inner)
            for key, inner in value.items()
            if not key.endswith(("_wall_s", "_per_s"))
        }
    return [without_clocks(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def printed():
    """What two runs with the same arguments print."""
    outputs = []
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(2):
            pieces = []
            patch.setattr("sys.stdout.write", pieces.append)
            assert main(ARGUMENTS) == 0
            outputs.append("".join(pieces))
    return outputs


def test_the_same_seed_prints_the_same_bytes_but_for_clock_readings(printed):
    first, second = (json.dumps(without_clocks(json.loads(text))) for text in printed)
    assert first == second


def test_each_saboteur_dies_of_its_kind(printed):
    died = {one["label"]: one["died_of"] for one in json.loads(printed[0])["saboteurs"]}
    assert died == {
        "endless loop": "fuel",
        "memory bomb": "memory",
        "os._exit": "crashed",
        "reads /etc/passwd": "raised",
        "forged packing": "score",
    }


def test_the_engine_says_what_killed_them(printed):
    details = {one["label"]: one["detail"] for one in json.loads(printed[0])["saboteurs"]}
    assert all(details.values())
    assert "/etc/passwd" in details["reads /etc/passwd"]
    assert "overfills bin 0" in details["forged packing"]


def test_the_best_program_is_measured_in_fuel_and_on_held_out_instances(printed):
    result = json.loads(printed[0])
    assert result["evaluations"] == 20
    assert result["best"]["fuel"] > 0
    assert "def priority(item, bins):" in result["best"]["source"]
    assert result["lineage"][-1]["id"] == result["best"]["id"]
    for measured in result["held_out"].values():
        assert measured["error"] is None
        assert all(value >= 0 for value in measured["excess"].values())
    assert len(result["digest"]) == 64
