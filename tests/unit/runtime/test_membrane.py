import pytest
import wasmtime
from attrs import evolve

from evocell_runtime import membrane
from evocell_runtime.boot import BOOT_STATE
from evocell_runtime.errors import ImageError
from evocell_runtime.membrane import GLOBALS, TABLE, render
from evocell_runtime.rewrite import WASI_MODULE, FunctionImport


def assembled(imports, **options):
    text = render(imports, **{"pages": 100, "state": BOOT_STATE} | options)
    return wasmtime.Module(wasmtime.Engine(), bytes(wasmtime.wat2wasm(text)))


def test_it_exports_all_the_interpreter_imports_with_the_same_signatures(parts):
    exports = {e.name: e.type for e in assembled(parts.imports).exports}

    for function in parts.imports:
        kind = exports[function.export_name]
        assert tuple(str(p) for p in kind.params) == function.params, function.export_name
        assert tuple(str(r) for r in kind.results) == function.results, function.export_name
    assert exports["memory"].limits.min == 100


def test_it_imports_only_the_real_functions_that_the_table_names(parts):
    real = {(i.module, i.name) for i in assembled(parts.imports).imports}

    assert real == {(WASI_MODULE, name) for decision in TABLE for name in decision.real}
    assert not {name for _, name in real} & {d.name for d in TABLE if d.answer == "refused"}


def test_nothing_in_it_is_left_unfilled(parts):
    text = render(parts.imports, pages=100, state=BOOT_STATE)
    code = "\n".join(line.split(";;")[0] for line in text.splitlines())

    assert "@" not in code


def test_the_saved_state_is_where_its_globals_start(parts):
    state = {name: 1000 + n for n, name in enumerate(GLOBALS)}
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    text = render(parts.imports, pages=1, state=state)

    exports = linker.instantiate(store, wasmtime.Module(engine, text)).exports(store)

    assert {name: exports[name].value(store) for name in GLOBALS} == state


def test_a_large_clock_and_generator_survive(parts):
    assembled(parts.imports, state={**BOOT_STATE, "clock_ns": 2**64 - 1, "rng": 2**63})


def test_an_import_nobody_decided_is_refused_by_name(parts):
    strange = (
        FunctionImport(WASI_MODULE, "fd_renumber", ("i32", "i32"), ("i32",)),
        FunctionImport("env", "x", (), ()),
    )

    with pytest.raises(ImageError, match=r"imports env\.x, fd_renumber, which the membrane does not decide"):
        render((*parts.imports, *strange), pages=1, state=BOOT_STATE)


def test_the_order_of_the_imports_does_not_matter(parts):
    assert render(parts.imports, pages=1, state=BOOT_STATE) == render(
        tuple(reversed(parts.imports)), pages=1, state=BOOT_STATE
    )


def test_every_decision_is_of_a_known_kind_and_explained():
    for decision in TABLE:
        assert decision.answer in ("membrane", "bounded", "refused")
        assert decision.what
        assert decision.answer != "bounded" or decision.real
        assert decision.answer != "refused" or not decision.real
    with pytest.raises(AttributeError):
        evolve(TABLE[0]).name = "other"


def test_a_path_call_costs_more_than_a_transfer_and_that_more_than_a_descriptor_call():
    costs = membrane.COSTS

    assert costs["COST_PATH"] > costs["COST_TRANSFER"] > costs["COST_DESCRIPTOR"] > costs["COST_CAPTURE"]
