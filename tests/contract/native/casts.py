"""What numpy makes of floating-point numbers as integers: run natively this writes the expected answers anew.

python3.13 casts.py, with numpy at the guest's version, on x86-64
"""

import sys
import warnings

import numpy as np

NUMBERS = [
    -0.5,
    -1.0,
    -1.5,
    -127.0,
    -128.0,
    -129.0,
    -255.0,
    -256.0,
    -300.7,
    0.0,
    127.0,
    128.0,
    255.0,
    255.9,
    256.0,
]
NUMBERS += [300.7, 32767.0, 32768.0, -32768.0, -32769.0, 65535.0, 65536.0, -65536.5, 70000.3]
NUMBERS += [-(2.0**31), -(2.0**31) - 1, -(2.0**31) - 1024, 2.0**31 - 1, 2.0**31 - 0.5, 2.0**31, 2.0**31 + 512]
NUMBERS += [2.0**32 - 1, 2.0**32 - 0.5, 2.0**32, 2.0**32 + 1024, -(2.0**32), 1e10, -1e10, 2.0**53, 2.0**62]
NUMBERS += [
    2.0**63 - 1024,
    2.0**63,
    2.0**63 + 4096,
    -(2.0**63),
    -(2.0**63) - 4096,
    1.5 * 2.0**63,
    2.0**64 - 4096,
]
NUMBERS += [2.0**64, 2.0**65, -(2.0**64), 1e19, -1e19, 1e30, -1e30, 1e300, -1e300, np.inf, -np.inf, np.nan]
SOURCES = "efdgFDG"
TARGETS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "m8[s]", "M8[s]")
DATES = TARGETS[-2:]


def spread(x):
    """The same numbers, not side by side."""
    wide = np.zeros(2 * len(x), x.dtype)
    wide[::2] = x
    return wide[::2]


def unaligned(x):
    shifted = np.zeros(len(x) * x.itemsize + 1, "u1")[1:].view(x.dtype)
    shifted[...] = x
    return shifted


def into(x, target, where):
    a = np.zeros(len(x), target)
    a[where] = x
    return a


def copied(x, target):
    a = np.zeros(len(x), target)
    np.copyto(a, x, casting="unsafe", where=np.ones(len(x), bool))
    return a


def every_other(x, target):
    a = np.zeros(2 * len(x), target)
    a[::2] = x
    return a[::2]


# The first is by which the answers are made; where others differ natively, it is by loops that are made with vectors.
WAYS = {
    "spread": lambda x, target: spread(x).astype(target),
    "side by side": lambda x, target: x.astype(target),
    "unaligned": lambda x, target: unaligned(x).astype(target),
    "one by one": lambda x, target: np.array([one.astype(target) for one in x]),
    "pieces": lambda x, target: np.concatenate([x[k : k + 3].astype(target) for k in range(0, len(x), 3)]),
    "assigned": lambda x, target: into(x, target, ...),
    "assigned by places": lambda x, target: into(x, target, np.arange(len(x))),
    "assigned by a mask": lambda x, target: into(x, target, np.ones(len(x), bool)),
    "assigned with steps": every_other,
    "copied": copied,
    "scalars": lambda x, target: np.array([np.dtype(target).type(one) for one in x]),
    "ufunc": lambda x, target: np.positive(x, out=np.zeros(len(x), target), casting="unsafe"),
}
WITHOUT_DATES = ("scalars", "ufunc")


def whole(a):
    return a.view("i8").tolist() if a.dtype.kind in "mM" else a.tolist()


def warned(x, target):
    """Whether a conversion is said to be invalid, number by number."""
    found = []
    for k in range(len(x)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            spread(x[k : k + 1]).astype(target)
        found.append(any(str(one.message) == "invalid value encountered in cast" for one in caught))
    return found


def observe(source, target):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = np.array(NUMBERS).astype(source)
        values = whole(WAYS["spread"](x, target))
    flags = warned(x, target) if target not in DATES else [False] * len(x)
    return " ".join(f"{value}{'!' * flag}" for value, flag in zip(values, flags, strict=True))


def differing():
    """Ways that give other numbers than the first: source, target, way and how many of them."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in SOURCES:
            x = np.array(NUMBERS).astype(source)
            for target in TARGETS:
                right = whole(WAYS["spread"](x, target))
                for name, way in WAYS.items():
                    if target in DATES and name in WITHOUT_DATES:
                        continue
                    given = whole(way(x, target))
                    if given != right:
                        found.append(
                            [source, target, name, sum(a != b for a, b in zip(given, right, strict=True))]
                        )
    return found


def observe_all():
    return {f"{source} {target}": observe(source, target) for source in SOURCES for target in TARGETS}


OTHERS = {
    "reciprocal": lambda: [np.reciprocal(np.array([0, 1, 2, 100], kind)).tolist() for kind in "bBhHiIqQ"],
    "same value": lambda: [
        refused(lambda: np.array([2**63 - 1]).astype("f8", casting="same_value")),
        refused(lambda: np.array([2**64 - 1], "u8").astype("f8", casting="same_value")),
        refused(lambda: np.array([2**31 - 1], "i4").astype("f4", casting="same_value")),
        refused(lambda: np.array([2**62]).astype("f8", casting="same_value")),
        refused(lambda: np.array([256.0]).astype("u1", casting="same_value")),
        refused(lambda: np.array([255.0]).astype("u1", casting="same_value")),
    ],
    "durations": lambda: [
        (np.timedelta64(3, "s") * factor).astype("i8").item() for factor in (1e18, 1e19, -1e19, 0.5, np.nan)
    ],
    "Python floats": lambda: [np.array([-1.5, 3.7], "i8").tolist(), np.full(2, -1.0).astype("u2").tolist()],
    "not from Python": lambda: [refused(setter, "i8", one) for one in (1e19, np.inf, np.nan, -1e300)],
    "from an iterator": lambda: (
        np.fromiter((one for one in np.array([-1.0, 256.0])), "f8").astype("u1").tolist()
    ),
    "image": lambda: (np.array([[-3.0, 260.0], [1e5, -0.7]]) * 1.0).astype(np.uint8).tolist(),
    "missing": lambda: [np.array([np.nan, 1.0]).astype(int).tolist(), int(np.float32("nan").astype("i4"))],
    "gamma": lambda: [repr(float(one)) for one in special([-171.5, -1e10 - 0.5, 1e10, -3000000000.5])],
    "sobel": lambda: filtered(np.array([[0, 9, 200], [250, 3, 7], [1, 255, 0]], "u1")),
}


def setter(kind, value):
    np.zeros(1, kind)[0] = value


def refused(action, *args):
    try:
        action(*args)
    except Exception as error:
        return type(error).__name__
    return "done"


def special(values):
    from scipy.special import gamma

    return gamma(np.array(values))


def filtered(image):
    from scipy import ndimage

    return [ndimage.sobel(image).tolist(), ndimage.correlate(image * 300.0, [[1, -1]], output="u1").tolist()]


def observe_others():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: repr(observed()) for name, observed in OTHERS.items()}


if __name__ == "__main__":
    with open(__file__.removesuffix(".py") + ".txt", "w") as file:
        file.writelines(
            f"{name}  ==>  {answer}\n" for name, answer in {**observe_all(), **observe_others()}.items()
        )
    for difference in differing():
        sys.stdout.write(f"{difference}\n")
    sys.exit()
