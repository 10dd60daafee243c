"""Shorter ways to begin and to end an object, where most objects begin and end.

A call costs much here: no register outlives it. So what `_Py_NewReference` does when `tracemalloc` is off, one store, is done
by its callers, and an object that refers to no other one is ended without a look at how deep the interpreter is.
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Edit

_TRACER = 26151952 + 5788  # within the interpreter's state: the function that is told of each object, or 0
_INT = 26106228
_HAS_REFERENCES = 16384  # Py_TPFLAGS_HAVE_GC

_NEW = {
    "PyDict_New": 1,
    "PyFloat_FromDouble": 1,
    "PyList_New": 1,
    "PyLong_FromLong": 3,
    "PyLong_FromLongLong": 2,
    "PyLong_FromSize_t": 3,
    "PyLong_FromSsize_t": 3,
    "PyTuple_FromArray": 1,
    "PyTuple_New": 1,
    "PyTuple_Pack": 1,
    "PyUnicode_New": 1,
    "_PyCompactLong_Add": 2,
    "_PyCompactLong_Multiply": 2,
    "_PyCompactLong_Subtract": 2,
    "_PyList_FromStackRefStealOnSuccess": 1,
    "_PyLong_FromSTwoDigits": 2,
    "_PyObject_GC_New": 1,
    "_PyObject_GC_NewVar": 1,
    "_PyTuple_FromArraySteal": 1,
    "_PyTuple_FromPairSteal": 1,
    "_PyTuple_FromStackRefStealOnSuccess": 1,
    "_PyType_AllocNoTrack": 2,
    "float_add#1": 1,
    "float_div": 1,
    "float_mul": 1,
    "float_sub": 1,
    "list_iter": 1,
    "list_new_prealloc": 1,
    "long_alloc": 2,
    "range_iter": 1,
    "tuple_iter": 1,
}
"""Functions that make objects, and how often."""

_BEGIN_DEALLOC = (
    "global.get 0\ni32.const -256\ni32.add\nlocal.tee 1\nglobal.set 0"  # as `depth-free` leaves it
)

OBJECTS: tuple[AnyPatch, ...] = (
    *(
        Edit(
            name=f"new-{function.strip('_').replace('_', '-').replace('#', '-')}",
            why="A new object's count of references is set without a call, unless `tracemalloc` is told of each object.",
            function=function,
            expected="call _Py_NewReference",
            replacement=f"""
                local.tee new0
                i32.const 1
                i32.store
                block
                  i32.const {_TRACER}
                  i32.load
                  i32.eqz
                  br_if 0
                  local.get new0
                  call _Py_NewReference
                end
            """,
            new_locals=("i32",),
            places=places,
        )
        for function, places in _NEW.items()
    ),
    Edit(
        name="end-plain-objects",
        why=(
            "The end of an object that refers to no other one took a look at the depth of the interpreter and at "
            "objects whose end was put off; only containers need that."
        ),
        function="_Py_Dealloc",
        expected=_BEGIN_DEALLOC,
        replacement=f"""
            block
              i32.const {_TRACER}
              i32.load
              br_if 0
              local.get 0
              i32.load offset=4
              local.tee 2
              i32.const {_INT}
              i32.ne
              if
                local.get 2
                i32.load offset=84
                i32.const {_HAS_REFERENCES}
                i32.and
                br_if 1
                local.get 0
                local.get 2
                i32.load offset=24
                call_indirect (param i32)
                return
              end
              local.get 0
              call long_dealloc
              return
            end
            {_BEGIN_DEALLOC}
        """,
        occurrence=0,
    ),
)
"""This part of the table."""
