from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from evocell.config import Config, keys
from evocell.errors import ConfigurationError
from evocell.models import Limits

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "configuration.md"

SOURCE_KEYS = {
    "default_max_memory",
    "default_max_processes",
    "default_max_execution_time",
    "default_max_message_queue",
    "gc_interval_ms",
    "gc_retain_generations",
    "enforcement_poll_interval_ms",
    "enforcement_enabled",
    "emit_fitness_telemetry",
    "emit_resource_telemetry",
    "security_profile",
    "blocked_modules",
}


def write(tmp_path, text):
    path = tmp_path / "evocell.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_of_the_source_is_there():
    assert set(keys()) >= SOURCE_KEYS


def test_every_key_is_documented_with_its_default_and_variable():
    text = DOCUMENTATION.read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}

    assert set(rows) == set(keys())
    for key, row in rows.items():
        assert f"`EVOCELL_{key.upper()}`" in row
        default = keys()[key].default
        if isinstance(default, bool):
            assert f"| {str(default).lower()} |" in row
        elif isinstance(default, int):
            assert f"| {default:,} |" in row
        elif isinstance(default, str):
            assert f'| `"{default}"` |' in row


def test_defaults_need_no_file_and_no_environment():
    assert Config.load(env={}) == Config()


def test_code_goes_before_environment_before_file_before_default(tmp_path):
    path = write(tmp_path, "[evocell]\ngc_interval_ms = 1\ngc_retain_generations = 1\ndefault_max_fuel = 1\n")
    env = {"EVOCELL_GC_INTERVAL_MS": "2", "EVOCELL_GC_RETAIN_GENERATIONS": "2"}

    config = Config.load(path, env, gc_interval_ms=3)

    assert config.gc_interval_ms == 3
    assert config.gc_retain_generations == 2
    assert config.default_max_fuel == 1
    assert config.default_max_memory == 128 << 20


def test_the_environment_may_name_the_file(tmp_path):
    path = write(tmp_path, "gc_interval_ms = 7\n")

    assert Config.load(env={"EVOCELL_CONFIG": str(path)}).gc_interval_ms == 7


def test_every_kind_of_value_from_the_environment():
    config = Config.load(
        env={
            "EVOCELL_DEFAULT_MAX_FUEL": "1_000",
            "EVOCELL_ENFORCEMENT_ENABLED": "No",
            "EVOCELL_BLOCKED_MODULES": "os, socket ,",
            "EVOCELL_PROFILE": "realtime",
            "EVOCELL_STATE_DIR": "~/state",
            "EVOCELL_THREADS": "2",
            "EVOCELL_WARM": "",
            "OTHER": "x",
        }
    )

    assert config.default_max_fuel == 1000
    assert config.enforcement_enabled is False
    assert config.blocked_modules == ("os", "socket")
    assert config.profile == "realtime"
    assert config.state_dir == Path.home() / "state"
    assert config.thread_count() == 2
    assert config.warm == Config().warm


def test_a_lone_comma_is_an_empty_list():
    assert Config.load(env={"EVOCELL_BLOCKED_MODULES": ","}).blocked_modules == ()


def test_every_kind_of_value_from_a_file(tmp_path):
    path = write(
        tmp_path,
        'blocked_modules = ["os"]\nlayers = ["a.zip", "/b.zip"]\nstate_dir = "state"\n'
        'enforcement_enabled = false\nsecurity_profile = "high"\n',
    )

    config = Config.load(path, {})

    assert config.blocked_modules == ("os",)
    assert config.layers == (str(tmp_path / "a.zip"), "/b.zip")
    assert Config(layers=[tmp_path / "a.zip"]).layers == config.layers[:1]
    assert config.state_dir == tmp_path / "state"
    assert config.enforcement_enabled is False
    assert config.security_profile == "high"


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("code", lambda _: Config.load(env={}, defualt_max_fuel=1)),
        ("environment", lambda _: Config.load(env={"EVOCELL_DEFUALT_MAX_FUEL": "1"})),
        ("file", lambda path: Config.load(write(path, "defualt_max_fuel = 1\n"), {})),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path, name, load):
    with pytest.raises(ConfigurationError, match="did you mean 'default_max_fuel'") as caught:
        load(tmp_path)

    assert caught.value.key == "defualt_max_fuel", name


def test_a_key_like_no_other_lists_them_all():
    with pytest.raises(ConfigurationError, match=r"default_max_memory, .*warm"):
        Config.load(env={}, zzzzzz=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("default_max_memory", 0),
        ("default_max_memory", 8 << 30),
        ("default_max_processes", "10"),
        ("default_max_execution_time", 1.5),
        ("default_max_output", 2 << 20),
        ("gc_retain_generations", -1),
        ("enforcement_enabled", 1),
        ("security_profile", "paranoid"),
        ("blocked_modules", "os"),
        ("blocked_modules", ["not a module"]),
        ("profile", "fast"),
        ("layers", [3]),
        ("workers", 1.5),
        ("workers", -1),
        ("threads", 0),
        ("threads", True),
        ("state_dir", 3),
        ("cache_dir", ""),
        ("warm", None),
    ],
)
def test_a_value_that_cannot_be_used_names_its_key(key, value):
    with pytest.raises(ConfigurationError, match=f"setting {key} ") as caught:
        Config.load(env={}, **{key: value})

    assert caught.value.key == key


@pytest.mark.parametrize(
    ("variable", "text"),
    [("EVOCELL_GC_INTERVAL_MS", "1e3"), ("EVOCELL_ENFORCEMENT_ENABLED", "maybe")],
)
def test_text_that_is_no_value_names_its_variable(variable, text):
    with pytest.raises(ConfigurationError, match=variable):
        Config.load(env={variable: text})


@pytest.mark.parametrize("text", ["a = ", "evocell = 3\n", "[evocell]\nwarm = 'numpy'\n"])
def test_a_broken_file_is_refused(tmp_path, text):
    with pytest.raises(ConfigurationError):
        Config.load(write(tmp_path, text), {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.toml cannot be read"):
        Config.load(tmp_path / "missing.toml", {})


def test_limits_follow_the_settings():
    config = Config(
        default_max_fuel=5,
        default_max_memory=6 << 20,
        default_max_execution_time=1500,
        default_max_output=100,
    )

    assert config.limits() == Limits(fuel=5, memory_bytes=6 << 20, timeout_s=1.5, output_bytes=100)
    assert Config().limits() == Limits()


def test_paths_and_threads_have_defaults(tmp_path):
    assert Config().cache_path().name == "evocell"
    assert Config(cache_dir=tmp_path).cache_path() == tmp_path
    assert Config().thread_count() >= 1


def test_settings_pickle():
    assert pickle.loads(pickle.dumps(Config(threads=2))) == Config(threads=2)
