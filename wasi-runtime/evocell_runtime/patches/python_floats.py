"""Arithmetic of Python's own floats leaves a flag behind where it overflows or is invalid, as a processor does.

numpy asks for the flags after a loop that calls Python: `np.vectorize`, `np.frompyfunc` and arrays of objects. Only a result
that is not finite is looked at more closely, so that all others cost one subtraction and one comparison.
"""

from __future__ import annotations

from evocell_runtime.patches.model import AnyPatch, Donor, Edit

_FLAGS = 27608152
"""Where numpy's word of flags lies: 1 invalid, 8 overflow."""

_WHY = (
    "Overflow and invalid operations of Python's floats are seen by numpy where it calls Python in a loop: `np.vectorize`, "
    "`np.frompyfunc`, arrays of objects."
)

_WAT = f"""(module
  (import "interpreter" "memory" (memory 0))
  (func $finite (param $value f64) (result i32)
    (f64.eq (f64.sub (local.get $value) (local.get $value)) (f64.const 0)))
  (func $raise (param $flag i32)
    (i32.store (i32.const {_FLAGS}) (i32.or (i32.load (i32.const {_FLAGS})) (local.get $flag))))
  (func (export "evocell.not_finite") (param $a f64) (param $b f64) (param $result f64)
    (if (f64.ne (local.get $result) (local.get $result))
      (then
        (if (i32.and (f64.eq (local.get $a) (local.get $a)) (f64.eq (local.get $b) (local.get $b)))
          (then (call $raise (i32.const 1)))))
      (else
        (if (i32.and (call $finite (local.get $a)) (call $finite (local.get $b)))
          (then (call $raise (i32.const 8))))))))"""


def _noted(function: str, instruction: str, then: str = "") -> Edit:
    return Edit(
        name="flags-of-python-floats",
        why=_WHY,
        function=function,
        expected=f"{instruction}\n{then}",
        replacement=f"""
            local.set new1
            local.tee new0
            local.get new1
            {instruction}
            local.tee new2
            local.get new2
            f64.sub
            f64.const 0
            f64.ne
            if
            local.get new0
            local.get new1
            local.get new2
            call evocell.not_finite
            end
            local.get new2
            {then}
        """,
        new_locals=("f64", "f64", "f64"),
    )


PYTHON_FLOATS: tuple[AnyPatch, ...] = (
    Donor(name="flags-of-python-floats", why=_WHY, expected=(), wat=_WAT),
    *(
        _noted("_PyEval_EvalFrameDefault", one, "call PyFloat_FromDouble")
        for one in ("f64.add", "f64.sub", "f64.mul")
    ),
    _noted("float_add#1", "f64.add"),
    _noted("float_sub", "f64.sub"),
    _noted("float_mul", "f64.mul"),
    _noted("float_div", "f64.div"),
    *(_noted(one, "call fmod") for one in ("float_rem", "float_floor_div", "float_divmod#1")),
    *(
        _noted(f"{kinds}_{operation}", instruction)
        for kinds in ("float_compactlong", "compactlong_float")
        for operation, instruction in (
            ("add", "f64.add"),
            ("subtract", "f64.sub"),
            ("multiply", "f64.mul"),
            ("true_div", "f64.div"),
        )
    ),
)
"""This part of the table."""
