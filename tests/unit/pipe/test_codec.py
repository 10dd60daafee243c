"""Messages keep what they hold, in the types that the reader asked for; any bytes parse or are refused."""

import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ProtocolError
from evocell.models.equality import same_value
from evocell.pipe.codec import MessageEncoder, TypeOptions, message_reader
from evocell.wire.frames import FrameLimits, Notification, Request, Response

LIMITS = FrameLimits(max_bytes=1 << 20, max_items=10_000, max_depth=40)
SMALL = FrameLimits(max_bytes=200, max_items=20, max_depth=4)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=True),
    names,
    st.binary(max_size=40),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(names, inner, max_size=4),
        st.frozensets(st.integers(-9, 9), max_size=4),
        st.lists(st.floats(allow_nan=False), min_size=16, max_size=20),
    ),
    max_leaves=12,
)
params = st.dictionaries(names, values, max_size=4)
ids = st.integers(0, 2**32 - 1)
messages = st.one_of(
    st.builds(Request, ids, names, params),
    st.builds(Response, ids, st.none(), values),
    st.builds(Notification, names, params),
)
framings = st.sampled_from(["stream", "packet4"])


def encoder(framing="stream", **types):
    made = MessageEncoder(LIMITS, framing)
    if types:
        made.types = TypeOptions(**types)
    return made


def whole(data, framing="stream", limits=LIMITS):
    return list(message_reader(limits, framing).feed(data))


def one_by_one(data, framing="stream", limits=LIMITS):
    reader, found = message_reader(limits, framing), []
    for byte in data:
        found += reader.feed(bytes([byte]))
    return found


def plain(value):
    """What the reader gets who wants lists."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(value, key=msgpack.packb)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def content(message):
    return [
        getattr(message, name)
        for name in ("msgid", "method", "params", "error", "result")
        if hasattr(message, name)
    ]


@given(st.lists(messages, max_size=3), framings)
def test_what_went_in_comes_out_whole_and_one_byte_at_a_time(sent, framing):
    made = encoder(framing)
    data = b"".join(made.encode(message) for message in sent)

    for found in (whole(data, framing), one_by_one(data, framing)):
        assert same_value([content(one) for one in found], [content(one) for one in sent])


@given(messages, framings)
def test_a_reader_who_wants_lists_gets_lists(sent, framing):
    made = encoder(framing, tuples="list", arrays="list")
    found = whole(made.encode(sent), framing)

    assert same_value(content(found[0]), [plain(one) for one in content(sent)])


@given(messages)
def test_lists_are_read_by_a_library_that_knows_no_extension_but_big_numbers(sent):
    """What docs/pipe.md promises: with both options at "list" only codes 1 and 8 occur."""
    codes = set()

    def note(code, data):
        codes.add(code)
        return code

    msgpack.unpackb(encoder(tuples="list", arrays="list").encode(sent), ext_hook=note, strict_map_key=False)
    assert codes <= {1, 8}


@pytest.mark.parametrize("tuples", ["list", "ext"])
@pytest.mark.parametrize("arrays", ["list", "ext"])
def test_arrays_come_as_the_reader_wants_them(tuples, arrays):
    array = np.arange(6.0).reshape(2, 3)
    (found,) = whole(encoder(tuples=tuples, arrays=arrays).encode(Response(1, None, (array, {3, 1}))))

    group, members = found.result if tuples == "list" else (found.result[0], found.result[1])
    assert type(found.result) is (list if tuples == "list" else tuple)
    assert members == ([1, 3] if tuples == "list" else {1, 3})
    if arrays == "list":
        assert group == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    else:
        assert np.array_equal(group, array)
        assert group.dtype == array.dtype


@given(st.binary(max_size=150), framings)
def test_any_bytes_give_messages_or_a_protocol_error_however_they_are_cut(data, framing):
    def attempt(read):
        try:
            return [content(one) for one in read(data, framing, SMALL)]
        except ProtocolError:
            return "refused"

    cut, at_once = attempt(one_by_one), attempt(whole)
    assert (cut == "refused") == (at_once == "refused")
    if at_once != "refused":
        assert same_value(cut, at_once)


@pytest.mark.parametrize(
    ("data", "framing", "why"),
    [
        (b"\xc1", "stream", "begins no value"),
        (b"\x93\x02\xa1m\x91\x81\xa1x\xd4\x63\x00", "stream", "extension type"),
        (b"\x93\x02\xa1m\x91\x81\xa1x\xc7\x05\x02\x91\x91\x91\x91\x90", "stream", "deeper than"),
        (b"\xc9\xff\xff\xff\xff\x05", "stream", "longer than 200 bytes"),
        (b"\x00\x00\xff\xff", "packet4", "longer than 200 bytes"),
        (b"\x00\x00\x00\x02\xc0\xc0", "packet4", "it is none of"),
        (b"\x00\x00\x00\x08\x93\x02\xa1m\x91\x80\xc0\xc0", "packet4", "none of|exactly one"),
        (b"\x00\x00\x00\x03\x93\x02\xa1", "packet4", "exactly one message"),
        (b"\x00\x00\x00\x00", "packet4", "exactly one message"),
    ],
)
def test_what_is_malformed_is_refused_by_its_fault(data, framing, why):
    with pytest.raises(ProtocolError, match=why):
        whole(data, framing, SMALL)


def test_what_cannot_be_sent_names_the_place():
    with pytest.raises(ProtocolError, match=r"\['a'\]"):
        encoder().encode(Notification("m", {"a": object()}))
    with pytest.raises(ProtocolError, match="limit is 1,048,576"):
        encoder().encode(Notification("m", {"a": b"x" * (1 << 20)}))


@pytest.mark.parametrize("value", [{"__proto__": 1}, {1: 2}, {"a": {(1, 2): [3]}}, {None: {True: b"x"}}])
def test_maps_that_a_reader_has_no_map_for_come_in_pairs(value):
    found = []

    def read(code, payload):
        assert code in {2, 9}
        if code == 2:
            return "tuple"
        found.append(code)
        return {"pairs": msgpack.unpackb(payload, ext_hook=read, strict_map_key=True)}

    made = encoder(tuples="list", arrays="list", maps="plain")
    plain = msgpack.unpackb(made.encode(Response(1, None, value)), ext_hook=read, strict_map_key=True)
    assert found
    assert "__proto__" not in plain[3]
    assert msgpack.unpackb(made.encode(Response(1, None, {"a": 1})))[3] == {"a": 1}


def test_nan_stays_a_nan():
    (found,) = whole(encoder(tuples="list", arrays="list").encode(Response(1, None, [math.nan])))
    assert math.isnan(found.result[0])
