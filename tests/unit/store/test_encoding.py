import msgpack
import pytest
from tests.unit.wire import colliding

from evocell.store.encoding import pack, unpack


@pytest.mark.parametrize("value", [None, {"a": [1, {"b": 2.5}]}, {1: "a"}, {"x": {2: 3}}, [{-1: 0}] * 9])
def test_what_was_packed_comes_back(value):
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x92\x01", b"\x81\x01", b"\xd4\x05\x00" * 2, b"\x81\x01\xd4\x09\x00", b"\x91" * 2000],
)
def test_a_damaged_record_is_a_value_error(packed):
    with pytest.raises(ValueError, match=r"the record cannot be read|extra data|nested"):
        unpack(packed)


def test_numbers_chosen_to_collide_are_refused_in_a_record():
    keys = colliding.ints_for_a_dict(14)
    body = b"".join(msgpack.packb(key) + b"\xc0" for key in keys)

    with pytest.raises(ValueError, match="collide"):
        unpack(b"\xdf" + len(keys).to_bytes(4, "big") + body)
