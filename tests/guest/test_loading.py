import sys

from evocell_guest import agent

PACKAGE = {
    "program.py": "from pkg.sub.deep import value\nimport pkg\ndef f(): return [value, pkg.NAME, pkg.__name__]",
    "pkg/__init__.py": "NAME = 'pkg'\nfrom . import helper",
    "pkg/helper.py": "from .sub import deep\nfrom importlib.resources import files\n"
    "def read(): return files('pkg').joinpath('data.txt').read_text()\n"
    "def old():\n  import pkgutil\n  return pkgutil.get_data('pkg', 'data.txt')",
    "pkg/data.txt": "some data",
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": "from ..sub import __name__ as parent\nvalue = parent",
}


def test_packages_and_relative_imports(guest):
    assert guest.run(PACKAGE)["v"] == ["pkg.sub", "pkg", "pkg"]


def test_resources_are_read_from_the_versions_tree(guest):
    assert guest.run(PACKAGE, "pkg.helper:read")["v"] == "some data"
    assert guest.run(PACKAGE, "pkg.helper:old")["v"] == b"some data"


def test_a_directory_without_init_is_a_namespace_package(guest):
    answer = guest.run({"program.py": "def f():\n  import pkg.a.b as b\n  return b.x", "pkg/a/b.py": "x = 1"})

    assert answer == {"t": "completed", "v": 1}


def test_a_package_goes_before_a_module_of_its_name(guest):
    tree = {"pkg.py": "def f(): return 'module'", "pkg/__init__.py": "def f(): return 'package'"}

    assert guest.run(tree, "pkg:f")["v"] == "package"


def test_module_attributes_are_the_usual_ones(guest):
    answer = guest.run(
        "def f():\n  import inspect, sys\n  m = sys.modules[__name__]\n"
        "  return [__name__, __file__, __spec__.name, __package__, inspect.getsource(f).splitlines()[0], repr(m)]"
    )

    path = f"{guest.root}/program.py"
    assert answer["v"] == ["program", path, "program", "", "def f():", f"<module 'program' from '{path}'>"]


def test_loading_opens_no_file(guest, monkeypatch):
    code = guest.compile({"program.py": "import pkg.b\ndef f(): return pkg.b.x", "pkg/b.py": "x = 2"})["code"]
    opened = []
    sys.addaudithook(
        lambda event, args: opened.append(args[0]) if event == "open" and opened is not None else None
    )
    opened.clear()

    answer = guest.call("program:f", code=code)
    seen, opened = list(opened), None

    assert answer["v"] == 2
    assert [path for path in seen if str(path).startswith(guest.root)] == []


def test_a_versions_module_goes_before_one_of_the_standard_library(guest, monkeypatch):
    import colorsys

    monkeypatch.setitem(sys.modules, "colorsys", colorsys)
    answer = guest.run(
        {"program.py": "import colorsys\ndef f(): return colorsys.x", "colorsys.py": "x = 'mine'"}
    )

    assert answer["v"] == "mine"


def test_a_reload_keeps_the_module_and_its_state(guest):
    guest.run("import json\ntry: n\nexcept NameError: n = 0\ndef f():\n  global n\n  n += 1\n  return n")
    guest.call("program:f")
    before = sys.modules["program"]

    code = guest.compile("try: n\nexcept NameError: n = 0\ndef f(): return n * 100")["code"]

    assert guest.call("program:f", code=code)["v"] == 200
    assert sys.modules["program"] is before
    assert not hasattr(before, "json")


def test_a_reload_runs_a_module_after_those_it_imports(guest):
    tree = {
        "program.py": "from pkg.rate import rate\ndef f(): return rate()",
        "pkg/rate.py": "def rate(): return 1",
    }
    assert guest.run(tree)["v"] == 1

    code = guest.compile(tree | {"pkg/rate.py": "def rate(): return 2"})["code"]

    assert guest.call("program:f", code=code)["v"] == 2


def test_a_reload_forgets_modules_that_are_gone_and_finds_new_ones(guest):
    guest.run({"program.py": "import pkg.a\ndef f(): pass", "pkg/a.py": ""})

    code = guest.compile({"program.py": "import pkg.b\ndef f(): return pkg.b.x", "pkg/b.py": "x = 1"})["code"]

    assert guest.call("program:f", code=code)["v"] == 1
    assert "pkg.a" not in sys.modules
    assert guest.call("pkg.a:f")["kind"] == "load"


def test_a_reload_that_raises_is_an_answer(guest):
    guest.run("def f(): return 1")

    answer = guest.call("program:f", code=guest.compile("1 / 0")["code"])

    assert (answer["t"], answer["type"]) == ("raised", "ZeroDivisionError")


def test_a_harness_drives_the_variant_and_cannot_be_replaced_by_it(guest):
    driver = "from program import rate\ndef run(n): return [rate(i) for i in range(n)]"
    harness = guest.compile({"driver.py": driver}, root=guest.harness_root)["code"]
    tree = {"program.py": "def rate(x): return x * x", "driver.py": "def run(n): return 'forged'"}

    answer = guest.run(tree, "driver:run", 3, harness=harness)

    assert answer["v"] == [0, 1, 4]


def test_a_harness_sees_the_variant_that_is_reloaded(guest):
    harness = guest.compile(
        {"driver.py": "from program import f\ndef run(): return f()"}, root=guest.harness_root
    )["code"]
    assert guest.run("def f(): return 1", "driver:run", harness=harness)["v"] == 1

    answer = guest.call("driver:run", code=guest.compile("def f(): return 2")["code"], harness=harness)

    assert answer["v"] == 2


def test_a_variant_that_clears_the_import_path_can_still_be_reloaded(guest, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    guest.run(
        "import sys\ndef f(): sys.meta_path.remove(next(x for x in sys.meta_path if hasattr(x, 'roots')))"
    )

    assert guest.call("program:f", code=guest.compile("def f(): return 5")["code"])["v"] == 5


def test_forgetting_leaves_nothing(guest):
    guest.run(PACKAGE)
    agent.loader.forget()

    assert agent.loader not in sys.meta_path
    assert not {"program", "pkg", "pkg.sub.deep"} & sys.modules.keys()
