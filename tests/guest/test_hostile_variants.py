"""What a variant returns or raises must not break the agent, whatever its methods do."""

import pytest

HOSTILE = """
class Meta(type):
    def __hash__(cls): raise SystemExit
    def __eq__(cls, other): raise SystemExit
    __name__ = property(lambda cls: 1 / 0)

class Bad(Exception, metaclass=Meta):
    __class__ = property(lambda self: 1 / 0)
    def __str__(self): {body}
    __repr__ = __str__
    __cause__ = property(lambda self: 1 / 0)
    __traceback__ = property(lambda self: 1 / 0)
    __notes__ = property(lambda self: 1 / 0)

def throw(): raise Bad()
def give(): return [Bad()] * 20
"""


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit(1)", "raise self", "return 'x' * 50_000_000", "return 3", "return self.__str__()"],
)
def test_an_exception_with_hostile_methods_is_an_answer(guest, body):
    answer = guest.run(HOSTILE.format(body=body), "program:throw")

    assert (answer["t"], answer["type"]) == ("raised", "Bad")
    assert len(answer["message"].encode()) <= 4 << 10
    assert len(answer["traceback"].encode()) <= 16 << 10


def test_a_value_with_hostile_methods_is_refused_unseen(guest):
    answer = guest.run(HOSTILE.format(body="raise SystemExit(1)"), "program:give")

    assert answer["message"].startswith("result[0] is a Bad")


def test_subclasses_travel_as_their_base_without_running(guest):
    answer = guest.run(
        """
import collections, enum
def no(*a): raise SystemExit
class S(str): __str__ = __iter__ = __len__ = encode = isascii = no
class I(int): __int__ = __index__ = no
class F(float): __float__ = __eq__ = no; __hash__ = float.__hash__
class L(list): __iter__ = __len__ = copy = no
class D(dict): items = __iter__ = __len__ = keys = no
class T(tuple): __iter__ = __len__ = __getitem__ = no
class B(bytes): __len__ = __bytes__ = no
class Z(set): __iter__ = __len__ = no
P = collections.namedtuple("P", "x y")
class E(enum.IntEnum): A = 4
def f():
    return [S("s"), I(3), F(1.5), L([1, 2]), D({"k": E.A}), T((1,)), B(b"b"), Z({5}), P(1, 2), bytearray(b"c"),
            collections.OrderedDict(a=1), collections.Counter("aab")]
"""
    )

    assert answer["v"] == [
        *("s", 3, 1.5, [1, 2], {"k": 4}, (1,), b"b", {5}, (1, 2), b"c", {"a": 1}, {"a": 2, "b": 1})
    ]


def test_an_ordered_dict_keeps_its_own_order(guest):
    source = "import collections\ndef f():\n  d = collections.OrderedDict(a=1, b=2)\n  d.move_to_end('a')\n  return d"

    assert list(guest.run(source)["v"]) == ["b", "a"]


def test_a_chain_of_exceptions_in_a_circle_ends(guest):
    answer = guest.run(
        "def f():\n  a, b = ValueError('a'), ValueError('b')\n  a.__context__ = b\n  b.__context__ = a\n  raise a"
    )

    assert answer["message"] == "a"


def test_a_group_of_groups_is_cut(guest):
    answer = guest.run(
        """
def f():
    e = ValueError('x' * 10_000)
    for _ in range(200):
        e = ExceptionGroup('g' * 10_000, [e] * 50)
    raise e
"""
    )

    assert answer["type"] == "ExceptionGroup"
    assert len(answer["traceback"].encode()) <= 16 << 10


def test_removing_the_tools_of_others_does_not_break_the_answer(guest, monkeypatch):
    import linecache
    import traceback

    monkeypatch.setattr(linecache, "getline", linecache.getline)
    monkeypatch.setattr(traceback, "format_exception", traceback.format_exception)
    answer = guest.run(
        "import linecache, traceback\ndef f():\n  linecache.getline = traceback.format_exception = None\n  raise KeyError('k')"
    )

    assert "line 4, in f\n    raise KeyError('k')" in answer["traceback"]


def test_a_fake_numpy_in_the_variant_cannot_stop_the_agent(guest, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "numpy", sys.modules["numpy"])
    answer = guest.run(
        "import sys, types\ndef f():\n  sys.modules['numpy'] = types.ModuleType('numpy')\n  return object()"
    )

    assert answer["t"] == "raised"


def test_text_that_is_not_unicode_in_a_message_is_escaped(guest):
    answer = guest.run("def f(): raise ValueError('\\ud800')")

    assert answer["message"] == "\\ud800"
