"""The dtypes that numpy's sorting is replaced for."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Element", "elements"]


@frozen
class Element:
    """A dtype, and the function that sorts it.

    Attributes:
        name: What numpy calls it.
        tag: The class that stands for it in numpy's templates.
        ctype: Its type in C.
        width: Bytes of an element: 2, 4 or 8.
        kind: "u" unsigned, "i" signed, "f" floating point, "M" dates, of which the smallest number is no date.
        function: The function that sorts it.
        digest: SHA-256 of that function's body.
    """

    name: str
    tag: str
    ctype: str
    width: int
    kind: str
    function: str
    digest: str


_DTYPES = (
    ("short integers", "npy::integral_type<short, (NPY_TYPES)3>", "short", 2, "i"),
    ("unsigned short integers", "npy::integral_type<unsigned short, (NPY_TYPES)4>", "unsigned short", 2, "u"),
    ("int integers", "npy::integral_type<int, (NPY_TYPES)5>", "int", 4, "i"),
    ("unsigned int integers", "npy::integral_type<unsigned int, (NPY_TYPES)6>", "unsigned int", 4, "u"),
    ("long integers", "npy::integral_type<long, (NPY_TYPES)7>", "long", 4, "i"),
    ("unsigned long integers", "npy::integral_type<unsigned long, (NPY_TYPES)8>", "unsigned long", 4, "u"),
    ("long long integers", "npy::integral_type<long long, (NPY_TYPES)9>", "long long", 8, "i"),
    (
        "unsigned long long integers",
        "npy::integral_type<unsigned long long, (NPY_TYPES)10>",
        "unsigned long long",
        8,
        "u",
    ),
    ("half floats", "npy::half_tag", "unsigned short", 2, "f"),
    ("single floats", "npy::floating_point_type<float, (NPY_TYPES)11>", "float", 4, "f"),
    ("double floats", "npy::floating_point_type<double, (NPY_TYPES)12>", "double", 8, "f"),
    ("dates", "npy::datetime_type<long long, (NPY_TYPES)21>", "long long", 8, "M"),
    ("durations", "npy::datetime_type<long long, (NPY_TYPES)22>", "long long", 8, "M"),
)


def elements(function: str, digests: tuple[str, ...]) -> tuple[Element, ...]:
    """All dtypes with one family of functions.

    Args:
        function: The functions' names, with `{tag}` and `{ctype}` where they differ.
        digests: SHA-256 of their bodies, in the order of the dtypes.
    """
    return tuple(
        Element(name, tag, ctype, width, kind, function.format(tag=tag, ctype=ctype), digest)
        for (name, tag, ctype, width, kind), digest in zip(_DTYPES, digests, strict=True)
    )
