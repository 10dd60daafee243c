"""The replaced functions where they are used: in a guest, beside the numpy of the host."""

import pytest

ARRAYS = """
import hashlib, numpy as np
r = np.random.RandomState(5)
def bits(a):
    a = np.ascontiguousarray(a)
    return hashlib.sha256(a.tobytes()).hexdigest()
def arrays():
    for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"):
        for size in (1, 17, 300, 5000, 40_000):
            a = r.randint(-(2**22), 2**22, size) / 2**15
            a = a.astype(code) if code[0] == "f" else np.floor(a).astype("i8").astype(code)
            yield code, a
"""
SORTS = """
for code, a in arrays():
    s = np.sort(a)
    places = np.argsort(a)
    assert (a[places] == s).all() and (np.bincount(places, minlength=len(a)) == 1).all(), code
    print(code, len(a), bits(s))
    a = a.reshape(-1, 1) if len(a) < 300 else a.reshape(-1, 100)
    print(code, bits(np.sort(a, axis=0)), bits(np.sort(a[:, ::-1], axis=1)))
"""
EXTREMES = """
for code, a in arrays():
    b = a[::-1].copy()
    print(code, len(a), bits(a.max()), bits(a.min()), int(a.argmax()), int(a.argmin()))
    print(code, bits(np.maximum(a, b)), bits(np.minimum(a, b)), bits(np.maximum(a, a[0])), bits(np.minimum(a[0], a)))
    print(code, bits(np.maximum.accumulate(a)), bits(a[::3].max()), bits(np.fmax(a, b)), bits(np.clip(a, 3, 90)))
    if code[0] == "f":
        a[len(a) // 2] = np.nan
        print(bits(np.isnan(a.max())), int(a.argmax()), int(a.argmin()), bits(np.nan_to_num(np.nanmax(a), nan=-1)))
"""
PRODUCTS = """
for m, n, k in ((1, 1, 1), (3, 5, 7), (4, 2, 1), (17, 33, 65), (64, 64, 64), (130, 70, 300), (301, 299, 303)):
    a, b = r.randint(-99, 99, (m, k)) / 8, r.randint(-99, 99, (k, n)) / 8
    print(m, n, k, bits(a @ b), bits((b.T @ a.T)), bits((a.astype("f4") @ b.astype("f4"))))
"""
"""Numbers of which every sum is exact, so that no order of additions shows."""


@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize("what", [SORTS, EXTREMES, PRODUCTS], ids=["sorts", "extremes", "products"])
def test_arrays_come_out_as_on_the_host(guest, run, what):
    program = ARRAYS + "import warnings; warnings.simplefilter('ignore')\n" + what
    lines = []
    exec(program, {"print": lambda *values: lines.append(" ".join(map(str, values)))})

    result = run(guest, program, fuel=10**12)

    assert (result.status, result.stderr.unchecked()) == (0, b"")
    assert result.stdout.unchecked().decode().splitlines() == lines


def test_a_product_adds_even_and_odd_products_apart(guest, run):
    program = """
import numpy as np
r = np.random.RandomState(3)
a, b = r.standard_normal((6, 11)), r.standard_normal((11, 4))
def element(x, y):
    even = odd = 0.0
    for i in range(0, 10, 2):
        even, odd = even + x[i] * y[i], odd + x[i + 1] * y[i + 1]
    return even + odd + x[10] * y[10]
print([[float(v) for v in row] for row in a @ b] == [[float(element(x, y)) for y in b.T] for x in a])
"""

    assert run(guest, program, fuel=10**11).stdout.unchecked() == b"True\n"
