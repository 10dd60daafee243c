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

# Build the documentation into build/site; a warning is an error. Look at it with `just docs --serve`
[positional-arguments]
docs *options: setup
    #!/usr/bin/env bash
    set -euo pipefail
    export NO_MKDOCS_2_WARNING=1
    if [[ "${1:-}" == --serve ]]; then
        shift
        exec '{{ bin }}/mkdocs' serve "$@"
    fi
    '{{ bin }}/mkdocs' build --strict --quiet "$@"
    '{{ bin }}/python' docs/_site/check.py build/site

# Build the wheel and the sdist into dist
dist: setup
    '{{ bin }}/python' -m hatchling build -d dist

# Install the wheel and all it depends on into a clean environment; run README's first program and the demo there
dist-try python="python3": dist
    #!/usr/bin/env bash
    set -euo pipefail
    place="$(mktemp -d)"
    trap 'rm -rf "$place"' EXIT
    '{{ python }}' -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet --disable-pip-version-check -c requirements.lock dist/*.whl
    first() { awk -v kind="$1" '$0 == "```" kind { on = 1; next } /^```/ && on { exit } on' README.md; }
    first python >"$place/first.py"
    first text >"$place/expected"
    cd "$place"
    venv/bin/evocell doctor
    venv/bin/python first.py | diff expected -
    venv/bin/evocell demo --generations 2 --population 20

# As `dist-try`, on each other Python that is here and runs; says which are not
dist-try-others:
    #!/usr/bin/env bash
    set -euo pipefail
    # A shim of pyenv is on the PATH also where it has nothing to run; what it stands for is looked for as well.
    for release in 3.12 3.13 3.14; do
        found=
        for python in "python$release" "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions/$release".*/bin/python; do
            if (cd / && "$python" -c "import ensurepip, sys, venv; assert '%d.%d' % sys.version_info[:2] == '$release'") >/dev/null 2>&1; then
                found="$python"
                break
            fi
        done
        if [[ -z "$found" ]]; then
            echo "dist-try-others: no Python $release that runs; skipped" >&2
            continue
        fi
        echo "dist-try-others: Python $release" >&2
        '{{ just_executable() }}' --justfile '{{ justfile() }}' dist-try "$found"
    done

# Static types, strict
types: setup
    '{{ bin }}/mypy'

# Measure, beside what people use instead; nothing is asserted. Options as in `just bench --help`
[positional-arguments]
bench *options: _bench-setup
    '{{ bin }}/python' bench/sandboxes.py "$@"

# Say what moved beyond noise between two runs: by default the one in docs and the latest
[positional-arguments]
bench-cmp *runs: setup
    '{{ bin }}/python' bench/compare.py "$@"

# Put the latest run into README.md and docs/benchmarks.md
[positional-arguments]
bench-docs *run: _bench-setup
    '{{ bin }}/python' bench/publish.py "$@"

# What only the benchmarks need: peers, and what draws the chart
_bench-setup: setup
    #!/usr/bin/env bash
    set -euo pipefail
    '{{ bin }}/python' -c 'import matplotlib, pydantic_monty' 2>/dev/null && exit 0
    '{{ bin }}/python' -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[bench]'

# Run every example
examples: setup
    '{{ bin }}/python' -m pytest -m '' tests/contract/test_examples.py

# The tests that take seconds each, or repeat others in this process; CI runs them after `just test`
[positional-arguments]
slow *options: setup
    '{{ bin }}/python' -m pytest -m slow "$@"

# The tests that run for minutes
[positional-arguments]
soak *options: setup
    '{{ bin }}/python' -m pytest -m soak --timeout=0 "$@"
