"""The code layer of the source architecture, row by row, over the real worker.

Each test is named for a row and does what the row asks for; the tests of the parts are elsewhere.
"""

from __future__ import annotations

from contextlib import closing

from evocell import Case, Config, Engine, Evaluation
from evocell.store.database import open_reader

FIRST = {
    "program.py": "import helper\ndef solve(n): return helper.twice(n)\n",
    "helper.py": "def twice(n): return 2 * n\n",
}
SECOND = FIRST | {"helper.py": "import math\ndef twice(n): return math.floor(n) + n\n"}


def byte_code(state_dir):
    with closing(open_reader(state_dir)) as reader:
        return reader.execute("SELECT seq, key FROM byte_code ORDER BY seq").fetchall()


def test_compiler_back_ends_cache_and_incremental_compiling(tmp_path):
    """IsolatedCompiler: multi-backend compilation; caching, incremental."""
    config = Config.load(workers=0, state_dir=tmp_path)
    with Engine(config) as engine, engine.create_sandbox(source=FIRST) as sandbox:
        sandbox.hot_reload_source(SECOND).unwrap()
        rejected = sandbox.hot_reload_source({"helper.py": "x = 1\ndef twice(:\n"}, keep_state=True)
        assert (rejected.path, rejected.line, rejected.text) == ("helper.py", 2, "def twice(:")
        assert rejected.column is not None
    written = byte_code(tmp_path)
    assert len(written) == 3  # two, the file that changed, and no other
    with Engine(config) as engine, engine.create_sandbox(source=SECOND) as sandbox:
        assert sandbox.run("solve", args=(4,)).unwrap() == 8
    assert byte_code(tmp_path) == written


def test_module_version_manager_versions_checksums_dependencies_lineage(engine):
    """ModuleVersionManager: version tracking up to N versions; checksums, dependencies; lineage metadata."""
    with engine.create_sandbox(source=FIRST) as sandbox:
        sandbox.hot_reload_source(SECOND, mutation_type="crossover").unwrap()
        one, two = sandbox.history("helper")
        assert (one.number, two.number, two.parent_version, two.mutation_type) == (1, 2, 1, "crossover")
        assert one.checksum != two.checksum
        assert (one.dependencies, two.dependencies) == ((), ("math",))
        assert sandbox.diff("helper").changed == ("helper", "helper:twice") or sandbox.diff("helper").added
        sandbox.rollback_module("helper", 1).unwrap()
        three = sandbox.get_module_version("helper")
        assert (three.checksum, three.restores, three.number) == (one.checksum, 1, 3)
        for number in range(12):
            sandbox.hot_reload_source(FIRST | {"helper.py": f"def twice(n): return {number}"}).unwrap()
        assert len(sandbox.history("helper")) == engine.config.max_module_versions == 10


def test_module_transformer_prefixes_modules_to_load_two_versions_at_once(engine):
    """ModuleTransformer: syntax-tree-based module prefixing; parent and child head to head in one sandbox."""
    task = Evaluation("solve", [Case(args=(n,), expected=2 * n) for n in range(3)])

    found = engine.head_to_head(FIRST, SECOND, task)

    assert found.agree
    assert (found.first.fitness_score, found.second.fitness_score, found.winner) == (1.0, 1.0, "draw")
    assert found.second.fuel_used != found.first.fuel_used
