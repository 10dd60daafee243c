# Every recipe works from a clean clone: `setup` makes the environment when it is missing or out of date.

set shell := ["bash", "-euo", "pipefail", "-c"]

bin := justfile_directory() / ".venv/bin"

# List the recipes
default:
    @'{{ just_executable() }}' --justfile '{{ justfile() }}' --list

# Make .venv with the locked versions (does nothing when it is up to date)
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    stamp=.venv/.evocell-setup
    wanted() { pwd; cat pyproject.toml requirements.lock; }
    if [[ -x .venv/bin/evocell ]] && wanted | cmp -s - "$stamp"; then
        exit 0
    fi
    [[ -x .venv/bin/python ]] || python3 -m venv .venv
    echo 'setup: installing evocell and its tools into .venv (about 0.5 GB, once)' >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
    wanted >"$stamp"

# Evolve a bin-packing heuristic inside sandboxes; options as in `evocell demo --help`
[positional-arguments]
demo *options: setup
    '{{ bin }}/evocell' demo "$@"

# Run the tests; options go to pytest
[positional-arguments]
test *options: setup
    '{{ bin }}/python' -m pytest "$@"

# Style, format and import layers
lint: setup
    '{{ bin }}/ruff' check .
    '{{ bin }}/ruff' format --check .
    '{{ bin }}/lint-imports'

# Static types, strict
types: setup
    '{{ bin }}/mypy'

# Measure; the numbers are printed, none is asserted
[positional-arguments]
bench *options: setup
    '{{ bin }}/python' bench/sandboxes.py "$@"

# The tests that run for minutes
[positional-arguments]
soak *options: setup
    '{{ bin }}/python' -m pytest -m soak --timeout=0 "$@"
