"""Clusters as they are set up elsewhere: with TLS, with one directory of images for all nodes, with a layer."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytest.importorskip("distributed")


import evocell
from evocell import Case, Config, Evaluation
from evocell.integrations.dask import DaskCluster
from evocell_runtime.cache import ImageCache
from measures.dask_processes import Cluster, wait_for

pytestmark = pytest.mark.slow

KEY = Path(__file__).parent / "tls" / "node.pem"  # of these tests alone: it opens nothing
GOOD = "def solve(n):\n    return n * n"
SQUARES = Evaluation("solve", [Case((n,), expected=n * n) for n in range(4)], score="equal")


@pytest.fixture
def start(tmp_path, copy_cache):
    """Start a cluster whose nodes have images of their own, and end it after the test."""
    started = []

    def start(*names, **options):
        for directory in ("dask", "tmp"):
            (tmp_path / directory).mkdir()
        environment = {
            "EVOCELL_CACHE_DIR": str(copy_cache(tmp_path / "cache")),
            "TMPDIR": str(tmp_path / "tmp"),
        }
        cluster = Cluster(tmp_path / "dask", environment, **options)
        started.append(cluster)
        for name in names:
            cluster.start_worker(name)
        return cluster

    yield start
    for cluster in started:
        cluster.close()


def up(engine):
    return [one for one in engine.workers() if one.node is not None and one.status == "up"]


def test_nodes_are_reached_by_tls(start, copied_cache):
    client = start("alpha", tls=KEY).client()
    with evocell.Engine(Config.load(workers=1, cache_dir=copied_cache), cluster=client) as engine:
        assert engine.evaluate_one(GOOD, SQUARES).valid
        assert [one.node.partition("://")[0] for one in up(engine)] == ["tls"]


def test_images_of_all_nodes_lie_in_one_directory(start, copied_cache, copy_cache, tmp_path):
    client = start("alpha", "beta").client()
    shared = ImageCache(copy_cache(tmp_path / "nfs"))
    shared.root.chmod(0o700)
    pool = DaskCluster(client=client, images_dir=str(shared.root))
    with evocell.Engine(Config.load(workers=1, cache_dir=copied_cache), cluster=pool) as engine:
        wait_for(lambda: len(up(engine)) == 2)
        with engine.create_sandbox(
            source="table = list(range(1000))\ndef size():\n    return len(table)"
        ) as box:
            box.run("size").unwrap()
            frozen = engine.freeze(box, "table-of-all-nodes", replace=True)
        task = Evaluation("solve", [Case((7,), expected=7)], score="equal", image="table-of-all-nodes")
        assert all(one.valid for one in engine.evaluate(["def solve(n):\n    return n"] * 8, task))
        assert shared.image_dir(frozen.id).is_dir()
    assert not ImageCache(tmp_path / "cache").image_dir(frozen.id).exists()


def test_layers_reach_the_nodes(start, copy_cache, tmp_path):
    with zipfile.ZipFile(tmp_path / "layer.zip", "w") as layer:
        layer.writestr(zipfile.ZipInfo("triples.py"), "def triple(n):\n    return 3 * n\n")
    own = copy_cache(tmp_path / "own")
    config = Config.load(workers=1, cache_dir=own, layers=(tmp_path / "layer.zip",))
    with evocell.Engine(config, cluster=start("alpha", "beta").client()) as engine:
        wait_for(lambda: len(up(engine)) == 2, seconds=180)
        task = Evaluation("solve", [Case((n,), expected=3 * n) for n in range(4)], score="equal")
        source = "import triples\ndef solve(n):\n    return triples.triple(n)"
        assert all(one.valid for one in engine.evaluate([source] * 4, task))
        assert sum(one.finished for one in up(engine)) > 0
