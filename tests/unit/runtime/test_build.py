import os
import shutil
import signal
import subprocess
import sys
import types

import psutil
import pytest

from evocell_runtime import build, builder
from evocell_runtime.build import BuildProgress, build_image
from evocell_runtime.errors import ImageError
from evocell_runtime.image import Image, open_image
from evocell_runtime.spec import ImageSpec

SMALL = ImageSpec(warm=())
BUILD_IN_A_PROCESS = """
import sys
from evocell_runtime.build import build_image
from evocell_runtime.cache import ImageCache
from evocell_runtime.spec import ImageSpec

steps = []
def progress(step):
    if not steps or steps[-1] != step.step:
        steps.append(step.step)
        print("step", step.step, flush=True)

manifest = build_image(ImageSpec(warm=()), ImageCache(sys.argv[1]), progress)
print("built", manifest.created, manifest.snapshot_sha256, manifest.build_s, flush=True)
"""


def start(cache):
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_IN_A_PROCESS, str(cache.root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def left_behind(cache):
    return [p.name for p in cache.root.iterdir() if p.name.startswith(".")]


@pytest.fixture
def no_builder(monkeypatch):
    """Building is an error."""

    def refuse(*args, **kwargs):
        pytest.fail("a build was started")

    monkeypatch.setattr(build, "_run_builder", refuse)


# ---------------------------------------------------------------------- having an image


def test_an_image_that_is_there_is_not_built_again(built, no_builder):
    cache, manifest = built
    seen = []

    assert build_image(SMALL, cache, seen.append) == manifest
    assert seen == []


@pytest.mark.slow
def test_two_processes_at_once_build_once(cache):
    processes = [start(cache), start(cache)]
    outputs = []
    for process in processes:
        with process:
            outputs.append(process.stdout.read().splitlines())
        assert process.returncode == 0

    assert outputs[0][-1] == outputs[1][-1]
    assert outputs[0][-1].startswith("built ")
    steps = [[line for line in lines if line.startswith("step ")] for lines in outputs]
    assert sorted("step freezing the interpreter" in s for s in steps) == [False, True]
    assert ["step another process is building; waiting"] in steps
    assert left_behind(cache) == []
    assert len(cache.images()) == 1


@pytest.mark.slow
def test_a_build_without_compilation_waits_for_no_other(cache):
    seen = []
    with cache.lock():  # as one that compiles an interpreter does
        manifest = build_image(SMALL, cache, lambda progress: seen.append(progress.step))
    assert cache.verify(manifest.image_id) == []
    assert not any("waiting" in step for step in seen)
    assert left_behind(cache) == []


@pytest.mark.slow
def test_killing_the_parent_kills_the_builder_and_the_next_build_sweeps_up(cache):
    with start(cache) as parent:
        for line in parent.stdout:
            if line.startswith("step starting Python"):
                break
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGKILL)

    assert len(children) == 1
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert cache.images() == []
    assert left_behind(cache) != []
    manifest = build_image(SMALL, cache)

    assert left_behind(cache) == []
    assert cache.verify(manifest.image_id) == []


def test_a_damaged_image_is_built_again_and_the_same(copied, run):
    cache, manifest = copied
    path = cache.image_dir(manifest.image_id) / "membrane.cwasm"
    path.write_bytes(path.read_bytes()[:-1])
    seen = []

    again = build_image(SMALL, cache, seen.append)

    assert cache.verify(again.image_id) == []
    assert again.snapshot_sha256 == manifest.snapshot_sha256
    assert seen[0].step == "checking the interpreter's files"
    assert all(0 <= s.fraction <= 1 and s.eta_s >= 0 and s.elapsed_s >= 0 for s in seen)
    assert [s.steps_done for s in seen] == sorted(s.steps_done for s in seen)
    instance = Image(cache, again).fork()
    assert run(instance, "print('sound')").stdout == b"sound\n"
    instance.close()


def test_an_image_that_passes_the_check_but_does_not_load_is_built_again_once(built, monkeypatch):
    cache, manifest = built
    forced, loads = [], []

    def pretend(spec, cache, progress=None, *, force=False):
        forced.append(force)
        return manifest

    class Failing:
        def __init__(self, cache, manifest):
            loads.append(manifest)
            raise ImageError("does not load")

    monkeypatch.setattr("evocell_runtime.build.build_image", pretend)
    monkeypatch.setattr("evocell_runtime.image.Image", Failing)

    with pytest.raises(ImageError, match="does not load"):
        open_image(SMALL, cache)
    assert (forced, loads) == ([False, True], [manifest, manifest])


def test_code_that_is_no_code_is_an_image_error(copied):
    cache, manifest = copied
    path = cache.image_dir(manifest.image_id) / "membrane.cwasm"
    path.unlink()
    path.write_bytes(b"\x7fELF".ljust(manifest.files["membrane.cwasm"].size, b"\0"))

    with pytest.raises(ImageError, match=f"the image {manifest.image_id} cannot be loaded"):
        Image(cache, manifest)


# ---------------------------------------------------------------------- room


def disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=free))


def memory(monkeypatch, available):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=available))


def test_too_little_disk_is_refused_with_what_it_takes(cache, no_builder, monkeypatch):
    disk(monkeypatch, 100 << 20)

    with pytest.raises(ImageError) as caught:
        build_image(SMALL, cache)

    assert str(caught.value) == (
        f"building the image takes 340 MB of disk and {cache.root} has 100 MB left; "
        "free some, or set EVOCELL_CACHE_DIR to a directory on a larger disk"
    )


def test_a_first_build_takes_more_disk(cache, no_builder, monkeypatch):
    shutil.rmtree(cache.code_dir(SMALL.code_key()))
    disk(monkeypatch, 400 << 20)

    with pytest.raises(ImageError, match="building the image takes 480 MB of disk"):
        build_image(SMALL, cache)


def test_too_little_memory_to_compile_is_refused(cache, no_builder, monkeypatch):
    memory(monkeypatch, 1_500_000_000)
    shutil.rmtree(cache.code_dir(SMALL.code_key()))

    with pytest.raises(ImageError) as caught:
        build_image(SMALL, cache)

    assert str(caught.value) == (
        "compiling the interpreter takes 2.8 GB of memory, once, and 1.5 GB are available; "
        "close other programs, or copy the image cache from a machine with the same processor"
    )


def test_an_interpreter_of_the_wrong_size_must_be_compiled_again_and_there_must_be_room(
    cache, no_builder, monkeypatch
):
    memory(monkeypatch, 1_500_000_000)
    compiled = cache.code_dir(SMALL.code_key()) / "interpreter.cwasm"
    compiled.unlink()
    compiled.write_bytes(b"\x7fELF")

    with pytest.raises(ImageError, match=r"compiling the interpreter takes 2\.8 GB"):
        build_image(SMALL, cache)


def test_little_memory_does_not_matter_when_nothing_is_compiled(cache, monkeypatch):
    memory(monkeypatch, 1_500_000_000)
    asked = []
    monkeypatch.setattr(build, "_run_builder", lambda *_, **options: asked.append(options))

    with pytest.raises(ImageError, match="was built but is not sound"):
        build_image(SMALL, cache)
    assert asked == [{"compile_needed": False}]


# ---------------------------------------------------------------------- the builder's troubles


def in_place_of_the_builder(monkeypatch, code):
    real = subprocess.Popen

    def start(arguments, **options):
        assert arguments[1:] == ["-m", "evocell_runtime.builder"]
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import json; print(json.dumps({'error': 'the layer is bad'}))", "the layer is bad"),
        ("import os; os.kill(os.getpid(), 9)", "the build was killed, most likely for want of memory"),
        ("raise SystemExit('out of luck')", "the build ended with code 1: out of luck"),
        ("pass", "the build ended with code 0: it said nothing"),
    ],
)
def test_what_the_builder_met_is_told_in_a_sentence(cache, monkeypatch, code, sentence):
    in_place_of_the_builder(monkeypatch, "import sys; sys.stdin.read()\n" + code)

    with pytest.raises(ImageError, match=sentence):
        build_image(SMALL, cache)


def test_a_builder_that_says_a_great_deal_does_not_block(cache, monkeypatch):
    code = "import sys; sys.stdin.read(); sys.stderr.write('x' * 1_000_000); raise SystemExit('the end')"
    in_place_of_the_builder(monkeypatch, code)

    with pytest.raises(ImageError, match="the build ended with code 1"):
        build_image(SMALL, cache)


def test_a_progress_callback_that_raises_ends_the_build(cache, monkeypatch):
    pids = []

    def progress(step: BuildProgress):
        pids.extend(
            child.pid for child in psutil.Process().children() if "evocell_runtime.builder" in child.cmdline()
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image(SMALL, cache, progress)

    assert pids
    assert not psutil.pid_exists(pids[0])
    with cache.lock(lambda _: pytest.fail("the lock is still held")):
        pass


def test_a_warm_module_that_does_not_exist_is_told(cache):
    with pytest.raises(ImageError, match="the module 'no_such_module' of the warm set cannot be imported"):
        build_image(ImageSpec(warm=("no_such_module",)), cache)
    assert left_behind(cache) == []


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_a_layer_that_cannot_be_used_is_refused_before_anything_is_built(
    cache, no_builder, tmp_path, content
):
    layer = tmp_path / "layer.zip"
    if content is not None:
        layer.write_bytes(content)

    with pytest.raises(ImageError, match=r"the layer .*layer\.zip (cannot be read|is not a zip file)"):
        build_image(ImageSpec(warm=(), layers=(layer,)), cache)


def test_the_steps_are_the_same_on_both_sides():
    assert tuple(build._STEP_TEXT) == builder.STEPS


# ---------------------------------------------------------------------- keys


def test_the_name_of_an_image_depends_on_what_goes_into_it(tmp_path, monkeypatch):
    layer = tmp_path / "a.zip"
    layer.write_bytes(b"PK\x05\x06" + bytes(18))
    plain = SMALL.image_id()

    names = {
        plain,
        ImageSpec(warm=("json",)).image_id(),
        ImageSpec(warm=("json", "re")).image_id(),
        ImageSpec(warm=(), layers=(layer,)).image_id(),
    }
    layer.write_bytes(b"PK\x05\x06" + b"\1" * 18)
    names.add(ImageSpec(warm=(), layers=(layer,)).image_id())
    monkeypatch.setattr("evocell_runtime.agent_zip.build", lambda: b"another agent")
    names.add(SMALL.image_id())
    monkeypatch.setattr("evocell_runtime.spec.cpu_features", lambda: "another processor")
    names.add(SMALL.image_id())

    assert len(names) == 7
    assert SMALL.code_key() == ImageSpec(warm=("json",)).code_key()
