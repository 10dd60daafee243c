"""Messages come out of a stream as they went in, and nothing malformed gets through."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.errors import ProtocolError
from evocell.wire.frames import (
    FrameLimits,
    FrameReader,
    Notification,
    Request,
    Response,
    encode_message,
)

SMALL = FrameLimits(max_bytes=200, max_items=20, max_depth=4)

TIMESTAMPS = [
    b"\xd6\xff" + bytes(4),
    b"\xd7\xff" + bytes(8),
    b"\xc7\x0c\xff" + bytes(12),
    b"\xc7\x04\xff" + bytes(4),
    b"\xc8\x00\x08\xff" + bytes(8),
    b"\xc9\x00\x00\x00\x0c\xff" + bytes(12),
]

names = st.text(max_size=8)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | names
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
params = st.dictionaries(names, plain, max_size=4)
ids = st.integers(0, 2**32 - 1)
messages = st.one_of(
    st.builds(Request, ids, names, params),
    st.builds(Response, ids, st.none(), plain),
    st.builds(Response, ids, params),
    st.builds(Notification, names, params),
)


def whole(data, limits=None):
    return list(FrameReader(limits).feed(data))


def one_by_one(data, limits=None):
    reader, found = FrameReader(limits), []
    for byte in data:
        found += reader.feed(bytes([byte]))
    return found


@given(st.lists(messages, max_size=4))
def test_what_went_in_comes_out_whole_and_one_byte_at_a_time(sent):
    data = b"".join(encode_message(message) for message in sent)

    assert whole(data) == sent
    assert one_by_one(data) == sent


@given(
    st.binary(max_size=120) | st.lists(messages, max_size=2).map(lambda m: b"".join(map(encode_message, m)))
)
def test_any_bytes_give_messages_or_a_protocol_error_however_they_are_cut(data):
    def attempt(read):
        try:
            return read(data, SMALL)
        except ProtocolError:
            return "refused"

    cut, at_once = attempt(one_by_one), attempt(whole)
    assert (cut == "refused") == (at_once == "refused")
    if at_once != "refused":
        assert cut == at_once


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1", "begins no value"),
        (b"\xc7\x01\x05x", "begins no value"),  # an extension type
        (b"\xd4\x05x", "begins no value"),
        *((b"\x93\x02\xa1m\x91\x81\xa1x" + stamp, "begins no value") for stamp in TIMESTAMPS),
        (b"\xc6\xff\xff\xff\xff", "longer than 200 bytes"),
        (b"\xdd\xff\xff\xff\xff", "more than 20 values"),
        (b"\xdf\xff\xff\xff\xff", "more than 20 values"),
        (b"\x91" * 10, "deeper than 4 levels"),
        (b"\x93\x02\xa1m\x90", "it is none of"),
        (b"\x92\x02\xa1m", "it is none of"),
        (b"\x00", "it is none of"),
        (msgpack.packb([0, -1, "m", [{}]]), "it is none of"),
        (msgpack.packb([0, 1, "m" * 65, [{}]]), "it is none of"),
        (msgpack.packb([0, 1, "m", [{1: 2}]]), "a malformed message"),
        (msgpack.packb([2, b"m", [{}]]), "it is none of"),
        (b"\x93\x02\xa1\xff\x91\x80", "a malformed message"),  # a name that is not UTF-8
    ],
)
def test_what_is_malformed_is_refused_by_its_fault(data, why):
    with pytest.raises(ProtocolError, match=why):
        whole(data, SMALL)


@pytest.mark.parametrize("head", [b"\xdd", b"\xdf"])
@pytest.mark.parametrize("limits", [FrameLimits(), SMALL])
def test_no_room_is_made_for_what_is_only_claimed(head, limits):
    """Nested headers that each claim 80 million values: a reader that believed one would need 640 MB."""
    data = b"\x94\x00\x01\xa1m" + (head + (80_000_000).to_bytes(4, "big")) * 20
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="more than"):
            whole(data, limits)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_stream_that_was_refused_stays_refused():
    reader = FrameReader(SMALL)
    good = encode_message(Notification("a"))
    found = reader.feed(good + b"\xc1" + good)

    assert next(found) == Notification("a")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            list(found) or list(reader.feed(good))


def test_what_waits_for_its_rest_is_bounded():
    reader = FrameReader(SMALL)
    assert list(reader.feed(b"\xc4\xc0" + b"x" * 100)) == []
    assert reader.pending_bytes == 102
    with pytest.raises(ProtocolError, match="longer than 200 bytes"):
        list(FrameReader(SMALL).feed(b"\x93\x02\xa1m\x91\x81\xa1x" + b"\xc4\xff" + b"x" * 100))


@pytest.mark.parametrize("stamp", TIMESTAMPS)
def test_a_timestamp_is_an_extension_type_like_any_other_also_in_a_short_message(stamp):
    with pytest.raises(ProtocolError, match="begins no value"):
        whole(b"\x93\x02\xa1m\x91\x81\xa1x" + stamp)
