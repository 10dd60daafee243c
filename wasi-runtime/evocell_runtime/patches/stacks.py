"""How deep Python may recurse: limits that fit a guest's stacks, and levels that count on the one it watches.

A guest has two stacks. CPython watches the one that its compiler keeps in memory (16 MiB), by an address
below which it raises `RecursionError`. The other is the machine's (`native.WASM_STACK_BYTES`), which nothing
in the guest can see; where a recursion takes nothing of the first one, the second overflows unwatched, and
the call is killed.
"""

from __future__ import annotations

import struct

from evocell_runtime.patches.model import AnyPatch, Donor, Edit, Memory

STACK_TOP = 16 << 20
"""Where the stack in memory begins; it grows towards 0."""

SOFT_LIMIT = STACK_TOP - (8 << 20)
"""Below this address Python raises `RecursionError`: some 15,000 calls that go through C, as on Linux."""

HARD_LIMIT = 1 << 20
"""Below this one it would abort; between them is room for code that never asks."""

_THREAD_STATE = 27561516  # a pointer to the only one
_LIMITS = 788
_FORMER_LIMITS = (STACK_TOP - 114_688, STACK_TOP - 122_880)
_PARSER_LEVEL = 88
_PARSER_START = f"local.get 7\ni32.const {_PARSER_LEVEL - 4}\ni32.add\ni64.const {{}}\ni64.store align=4"
_LEVELS_MORE = 2000

_COUNTED = 256
"""Bytes of the watched stack that one level of freeing takes."""


def _counting(function: str, digest: str, parameters: int, size: int, what: str) -> Donor:
    """A patch by which a function takes some of the watched stack while it runs."""
    signature = f"(param{' i32' * parameters}) (result i32)"
    arguments = " ".join(f"(local.get {n})" for n in range(parameters))
    return Donor(
        name=f"depth-{function.strip('_').replace('_', '-')}",
        why=(
            f"Recursion through {what} took next to nothing of the stack that Python watches, so that it "
            f"ended the call and not in RecursionError. Each level now takes {size} bytes of it."
        ),
        expected=((function, digest),),
        wat=f"""(module
  (import "interpreter" "stack_pointer" (global $sp (mut i32)))
  (import "original" "{function}" (func $original {signature}))
  (func (export "{function}") {signature}
    (local $result i32)
    (global.set $sp (i32.sub (global.get $sp) (i32.const {size})))
    (local.set $result (call $original {arguments}))
    (global.set $sp (i32.add (global.get $sp) (i32.const {size})))
    (local.get $result)))""",
    )


STACKS: tuple[AnyPatch, ...] = (
    Memory(
        name="depth-limits",
        why=(
            "Python took its stack to be 128 KiB and raised RecursionError after some 200 calls that go "
            "through C, and refused valid sources as nested too deeply. A guest has 16 MiB: half of it may "
            "be used before RecursionError."
        ),
        moment="warmed",
        address=_THREAD_STATE,
        path=(_LIMITS,),
        expected=struct.pack("<II", *_FORMER_LIMITS),
        replacement=struct.pack("<II", SOFT_LIMIT, HARD_LIMIT),
    ),
    Edit(
        name="depth-parser",
        why=(
            "The parser gave up after 4,000 levels of its own, which 150 nested calls take; elsewhere it "
            "does after 6,000. Its count begins 2,000 lower."
        ),
        function="_PyPegen_Parser_New",
        expected=_PARSER_START.format(0),
        replacement=_PARSER_START.format(-_LEVELS_MORE << 32),
    ),
    Edit(
        name="depth-free",
        why=(
            "Freeing a long chain of objects took nothing of the stack that Python watches, so that it "
            f"ended the call as a stack overflow. Each level now takes {_COUNTED} bytes of it, and before "
            "its end Python puts the rest of the chain aside, as it does elsewhere."
        ),
        function="_Py_Dealloc",
        expected="global.get 0\nlocal.set 1",
        replacement=f"global.get 0\ni32.const -{_COUNTED}\ni32.add\nlocal.tee 1\nglobal.set 0",
    ),
    Edit(
        name="depth-free-put-aside",
        why="Where _Py_Dealloc puts an object aside it gives back what depth-free takes.",
        function="_Py_Dealloc",
        expected="local.get 5\nglobal.set 0\nreturn",
        replacement=f"local.get 5\ni32.const {_COUNTED}\ni32.add\nglobal.set 0\nreturn",
    ),
    Edit(
        name="depth-free-done",
        why="Where _Py_Dealloc has freed an object it gives back what depth-free takes.",
        function="_Py_Dealloc",
        expected="end\nend\nlocal.get 5\nglobal.set 0\nend",
        replacement=f"end\nend\nlocal.get 5\ni32.const {_COUNTED}\ni32.add\nglobal.set 0\nend",
    ),
    _counting(
        "list_richcompare",
        "269a924443035a1790600ce0cdbdf0610faaf6776da9b03883399dc7a946ec1b",
        3,
        128,
        "the comparison of lists",
    ),
    _counting(
        "tuple_richcompare",
        "f9f9a5be212578f76825bb252c4a342b537bbdd65479ac25a68a7c8a6ea625da",
        3,
        128,
        "the comparison of tuples",
    ),
    _counting(
        "dict_richcompare",
        "11b0712f3291617bc36318afa25f85b27fd9bd476202da9f20c7f08f9f45d296",
        3,
        128,
        "the comparison of dicts",
    ),
    _counting(
        "deque_richcompare",
        "577504e9db87fb9eb1ff98c813c595dff968a74df1d861e97c024a162729731b",
        3,
        128,
        "the comparison of deques",
    ),
    _counting(
        "scan_once_unicode",
        "65164e2b598a723d055a2e2e5bea7e1afa10df8624626ea0735cec23857d67b0",
        5,
        128,
        "json.loads",
    ),
    _counting(
        "encoder_listencode_obj",
        "34550682000c09f54e8f05396dead06217feae9186ae6a49b4ae24b102dd406f",
        5,
        128,
        "json.dumps",
    ),
    _counting(
        "PyObject_Repr",
        "933e68015931faa3fee9815335487a61670cbe3b492d701ef47100c23fb49d72",
        1,
        1024,
        "repr, which looks through all that it is within at each level,",
    ),
    _counting(
        "object_recursive_isinstance",
        "e919a4758d72611e7fd0946c94598e2103d5580fb728c7a826992401f38a8de0",
        3,
        64,
        "isinstance with nested tuples",
    ),
    _counting(
        "_elementtree_Element___deepcopy___impl",
        "a78ef615682ee9772c9991d86df46cc1a76a21ffbfffd640f6c06360cb2b008b",
        2,
        128,
        "copy.deepcopy of an XML element",
    ),
    _counting(
        "object_issubclass",
        "b58211f0ae73ff3bb845e8cdc48a038956b87340f4e37f360258ef8ebe2a9e65",
        3,
        64,
        "issubclass with nested tuples",
    ),
    _counting(
        "astfold_expr",
        "49f058d7f645db3140bfd708a6103fe7d9d45c1acd0c1ee5aedd114b1bf40f46",
        3,
        128,
        "the parts of an expression that is compiled, such as `a()()()`,",
    ),
    _counting(
        "slot_tp_call",
        "f583ac97898167ebfbb9e5e1ac5cc5b41a716a43e4dab41c7544b7f99a587ad8",
        3,
        512,
        "`__call__` of a class that is an instance with `__call__` itself",
    ),
)
