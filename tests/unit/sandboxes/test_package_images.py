"""In which image code runs, and what becomes of images that are not there yet."""

from __future__ import annotations

import types

import pytest
import trio
import trio.testing

import evocell
from evocell.code.compiler import heavy_packages
from evocell.config import Config
from evocell.sandboxes import package_images
from evocell_runtime.warm import BASE, DEFAULT_WARM, HEAVY_PACKAGES, PACKAGE_IMAGES, image_for, warm_modules

NEVER = "def f():\n    if False:\n        import {}\n    return 1\n"
TASK = evocell.Evaluation("f", [evocell.Case(expected=1)], "equal")


class Builds:
    """Stands in for the building of images, and counts them."""

    def __init__(self) -> None:
        self.settings: list[Config] = []
        self.seconds = 0.0
        self.failure: Exception | None = None
        self.cancelled = 0

    async def ensure(self, config, progress):
        self.settings.append(config)
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return types.SimpleNamespace(image_id=f"image {len(config.warm)}")


@pytest.fixture
def builds(monkeypatch):
    made = Builds()
    monkeypatch.setattr(package_images, "ensure_image", made.ensure)
    return made


@pytest.mark.parametrize(
    ("imports", "image"),
    [
        ([], BASE),
        (["numpy", "json"], BASE),
        (["scipy", "numpy"], "scipy"),
        (["pandas"], "pandas"),
        (["mpmath"], "sympy"),
        (["joblib"], "sklearn"),
        (["scipy", "sklearn"], "sklearn"),
        (["scipy", "pandas"], "all"),
        (["statsmodels"], "all"),
        (sorted(HEAVY_PACKAGES), "all"),
    ],
)
def test_the_image_follows_from_the_imports(imports, image):
    assert image_for(imports) == image
    assert image_for(reversed(imports)) == image


def test_every_image_has_what_it_is_for():
    for name, (packages, modules) in PACKAGE_IMAGES.items():
        held = {module.partition(".")[0] for module in modules}
        assert packages <= held | {"mpmath", "patsy", "scipy"}  # which others import
        assert warm_modules(name)[: len(DEFAULT_WARM)] == DEFAULT_WARM
        assert image_for(packages) == name


def test_own_modules_and_what_may_not_be_imported_do_not_count():
    policy = Config(security_profile="high", blocked_modules=("pandas",)).policy
    assert heavy_packages(["scipy", "pandas", "numpy"], [], None) == ("pandas", "scipy")
    assert heavy_packages(["scipy", "pandas"], ["pandas"], None) == ("scipy",)
    assert heavy_packages(["scipy", "pandas", "seaborn"], [], policy(None)) == ("scipy",)
    assert heavy_packages(["scipy", "seaborn"], [], policy("low")) == ("scipy", "seaborn")


@pytest.mark.trio
async def test_an_image_is_built_once_and_named_in_the_result(async_engine, fake_workers, builds):
    sources = [NEVER.format(name) for name in ("scipy", "scipy.stats", "json")]
    results = await async_engine.evaluate(sources, TASK)
    assert [result.image for result in results] == ["scipy", "scipy", "base"]
    assert [config.warm for config in builds.settings] == [warm_modules("scipy")]
    made = f"image {len(warm_modules('scipy'))}"
    assert sorted(str(job.image) for job in fake_workers.last.jobs) == ["None", made, made]


@pytest.mark.trio
async def test_the_harness_counts_as_well(async_engine, builds):
    task = evocell.Evaluation(
        "driver:f", [evocell.Case()], lambda case, value: 1.0, harness={"driver.py": NEVER.format("pandas")}
    )
    assert (await async_engine.evaluate([NEVER.format("pandas")], task))[0].image == "pandas"
    assert (await async_engine.evaluate([NEVER.format("sympy")], task))[0].image == "all"
    assert await async_engine.prepare(task) == "pandas"
    assert await async_engine.prepare(task, packages=["scipy"]) == "all"
    assert len(builds.settings) == 2


@pytest.mark.trio
@pytest.mark.parametrize("settings", [{"images": "base"}, {"warm": ("numpy",)}])
async def test_it_can_be_turned_off_and_a_warm_set_of_ones_own_does(fake_workers, builds, settings):
    async with evocell.AsyncEngine(Config(**settings), open_worker=fake_workers) as engine:
        result = (await engine.evaluate([NEVER.format("scipy")], TASK))[0]
    assert (result.image, builds.settings) == ("base", [])


async def by_hand(sandbox):
    return 1.0


@pytest.mark.trio
async def test_a_deadline_does_not_count_the_build(async_engine, builds, autojump_clock):
    builds.seconds = 60.0
    result = (await async_engine.evaluate([NEVER.format("scipy")], TASK, deadline_s=5.0))[0]
    assert (result.valid, result.image) == (True, "scipy")
    sandbox = await async_engine.create_sandbox(source=NEVER.format("pandas"))
    assert (await sandbox.run("f", deadline_s=5.0)).unwrap() == 1
    results = await async_engine.batch_evaluate(
        [await async_engine.create_sandbox(source=NEVER.format("sympy"))],
        by_hand,
        deadline_s=5.0,
    )
    assert (results[0].valid, results[0].image) == (True, "sympy")


@pytest.mark.trio
async def test_a_build_that_fails_is_no_result_and_says_what_to_do(async_engine, builds):
    builds.failure = evocell.ImageError("building the image takes 160 MB of disk")
    with pytest.raises(evocell.ImageError, match=r"'scipy'.* 160 MB of disk.*images=\"base\""):
        await async_engine.evaluate([NEVER.format("scipy")], TASK)
    builds.failure = None
    assert (await async_engine.evaluate([NEVER.format("scipy")], TASK))[0].image == "scipy"


@pytest.mark.trio
async def test_a_cancelled_build_is_begun_again_by_the_next(async_engine, builds, autojump_clock):
    builds.seconds = 60.0
    with trio.move_on_after(1):
        await async_engine.evaluate([NEVER.format("scipy")], TASK)
    assert builds.cancelled == 1
    assert (await async_engine.evaluate([NEVER.format("scipy")], TASK))[0].image == "scipy"


@pytest.mark.trio
async def test_a_sandbox_follows_its_code_and_its_session_the_image_it_began_in(
    async_engine, fake_workers, builds
):
    sandbox = await async_engine.create_sandbox(source=NEVER.format("json"))
    jobs = fake_workers.last.jobs
    await sandbox.run("f")
    await sandbox.hot_reload_source(NEVER.format("scipy"), keep_state=True)
    await sandbox.run("f")
    assert {job.image for job in jobs} == {None}, "the session goes on where it began"
    assert (await sandbox.get_info()).image == "scipy"
    twin = await async_engine.fork_sandbox(sandbox)
    await twin.run("f")
    assert jobs[-1].image is None, "as does that of a fork"
    for one in (sandbox, twin):
        await one.run("f", isolation="call")
        assert jobs[-1].image == f"image {len(warm_modules('scipy'))}"
        assert (await async_engine.batch_evaluate([one], TASK))[0].image == "scipy"
    await sandbox.hot_reload_source(NEVER.format("scipy"))
    await sandbox.run("f")
    assert jobs[-1].image == f"image {len(warm_modules('scipy'))}", "a new session begins in that of the code"


@pytest.mark.trio
async def test_an_image_that_was_asked_for_wins(async_engine, fake_workers, builds):
    frozen = await (await async_engine.create_sandbox(source=NEVER.format("json"))).freeze("frozen")
    task = evocell.Evaluation("f", [evocell.Case()], lambda case, value: 1.0, image="frozen")
    assert (await async_engine.evaluate([NEVER.format("scipy")], task))[0].image == "frozen"
    assert fake_workers.last.jobs[-1].image == frozen.id
    own = evocell.Evaluation("f", [evocell.Case()], lambda case, value: 1.0, image=async_engine.image_id)
    assert (await async_engine.evaluate([NEVER.format("scipy")], own))[0].image == "base"
    assert builds.settings == []
