"""Compiled extensions take arrays of 64-bit integers where they ask for indices, as natively.

An extension made by Cython reads an array through a buffer whose items must have the width that it was compiled for.
Natively 64-bit integers are indices; here indices have 32 bits. So an array of 64-bit integers that was refused is
offered again as a copy of 32 bits, in which every number must fit. What is written to the copy goes to the array when
the buffer is released.
"""

from __future__ import annotations

from importlib.resources import files

from evocell_runtime.patches.model import AnyPatch, Donor, Edit
from evocell_runtime.patches.templates import refusal

_SLICES = "__Pyx_ValidateAndInit_memviewslice"
_BUFFERS = "__Pyx__GetBufferAndValidate"
_CPP_SLICE = (
    "(int*, int, int, int, __Pyx_TypeInfo const*, __Pyx_BufFmt_StackElem*, __Pyx_memviewslice*, _object*)"
)
_CPP_BUFFER = "(Py_buffer*, _object*, __Pyx_TypeInfo const*, int, int, int, __Pyx_BufFmt_StackElem*)"

_OF_SLICES = (
    ("#1", 8, "1b6efe6a5e8ed2ca0770cc6755efbf4918542ecf385e0a1316fc34c3a7f25b03"),
    ("#2", 8, "e944d0a7c3e544ff8abd8815a218478f1bfcdf8be1e3168b9c1064b68669bf92"),
    ("#3", 8, "bc94b9e8977366d47900e22300ea1a9d303effbd49df273914a9008fa10a024b"),
    ("#4", 6, "cde80ea4e7d88287c233ce9685d329b264dcc475b1283a41a4efb4dac6944c5a"),
    ("#5", 7, "d087ddc86ef0072abcc132796c3a883ee26e55aaa160cf84db1e13afe87f8cb4"),
    ("#6", 5, "aef5d03b8682a4631630b5195f7204ac458dee95531deb6ff51a1697ca6e24d4"),
    ("#7", 7, "6ebc4b1e1d23cc0ac8354f43a60f1cbbfcd266d236f3b10eb828c2ecf04bcc96"),
    ("#8", 7, "c97ada0982091d63f260c29b58d623db61d99e087c1a786746393c1986472876"),
    ("#9", 6, "8fa0e80c7ad9d7e1bfee3b4f509ef39e7909ccb2bff30b3d736242b8a66a0d30"),
    ("#10", 6, "90a403b3feea4f1466c43fc0a47ad0eb371e4d5012c41adafff6ae5d1aa6462b"),
    ("#11", 6, "17036a4e0973a43960e7865439f6ca9c282848e92b521c5edf0bd8de0c19c3a5"),
    ("#12", 8, "f90708cb03f8676408173584f8cd7f28bc479892dae61529bcd3580eecdc1fa4"),
    ("#13", 8, "71f8d46c80ff0ed520576c2344b507863b3bdf2f1295c8ce6019a233a23a19b1"),
    ("#14", 8, "b06ce55c7e37831006415a3b1fd16a98ff3458ac56882717adf04efb25b5d473"),
    ("#15", 6, "7e2ca04df63acdbe3133fe0eb5ca7bb09237163e925747e03ebecdb855080d00"),
    ("#16", 8, "58eb8bb08b5996dd11d669f1de58c9c9f6cec46d978bd99581c4c40ea82ae1ce"),
    ("#17", 8, "6dcb8b2342cb760aa2765e0472d2c93cfe7992340ecb906747953591e18208c8"),
    ("#18", 8, "96caec7c6e0a26009b4541a928f8d5557993930622d8895ab6b382e9f4c94f69"),
    ("#19", 5, "a6af5eb6dd0a49f47aacceb574793cdb6e73b4b1be6c9401e6e9fc6a035de278"),
    (_CPP_SLICE, 7, "d5cdb97c5060d5fbc3d2e0cfd31f48f41275454bc833d3ae26206a8bccdd9c6b"),
)
_OF_BUFFERS = (
    ("#1", 4, "93f6339ac9c5646d53564b0ebe810d9d377b27a64545ca5c54832aaf21c014f6"),
    ("#2", 6, "31375f8c3a311c62f7169a26342d548c13f169c6da92ae703568961e82531591"),
    ("#3", 6, "1caab2126e8755d9aa120f11b3164d21a26dcbd17a0da19c05b75b5021a2e7d9"),
    ("#4", 6, "459ef59483ec2d99676a8e73168ebbe13207e034422ca9f6d6cb9397af05d070"),
    ("#5", 6, "5558aee73585f2f13b77b32b4fa9e824fc0bc4e1386c77176710a0d4d4eb553a"),
    ("#6", 5, "a588de53ef565a50d1b715da1bf09a88bd68aed2c909177ffbab1786a5897540"),
    ("#7", 4, "00f980877649fe1f96b743c76abdcf23d59ab860f346fcc6b9a2db958228a81b"),
    ("#8", 5, "116980e2a32c520b074f4da03d649b639be05ef0fdf7a98bf46e9ff28b24e75e"),
    ("#9", 7, "df3f0021db63c257bbc320a98724033183fcbe3cf5920ab5a9eab2d8ab784564"),
    ("#10", 3, "a0a32a0ca444dc8d6d83be2b2559ef248ba5bbc2bc0a0ba8d5d18ec7ffe46844"),
    ("#11", 6, "f91847b2b5433abe23181719dc90f40e3f09e1f67c6c674c4f3c8f644074af26"),
    ("#12", 5, "9fffb376c646c470c9bf6a289c7a02f09888573f6952e89fb942d20e94a9e450"),
    ("#13", 5, "7ef70708138637becfae2300b9825c6597874db14d4d1ef29f02665f4811d904"),
    ("#14", 6, "b6e09374e5e01c3fc23e145a0c66214ffab9f9004922d200e276dc12c823dbf2"),
    ("#15", 4, "026c2e60fd8b3632555abbb67d1cd0c5efb2032a60f92bf19e0044bd5f9df9db"),
    ("#16", 5, "5d49bd72d736a7cc8ff4e832ac2cfb0e9615f98ddf329b5db5f8ad42e65d4211"),
    ("#17", 4, "c14e6a39d3bf18184557b88476ace872556039d47a8e96f6408b615730c87fb6"),
    ("#18", 5, "d0ea30b6add6c5e98f8e7e7222e68c8a7c8a82895f800f98af516874bdba50b1"),
    ("#19", 6, "a20c8491112f61fdea12993b427fb008a0cb688b97f9be0e59df0ccd035060d9"),
    ("#20", 3, "3e60c761d3b49edec571870d378d9381125faff883c0f6490ffbfda63f2d3c5b"),
    ("#21", 4, "0b84fd9e45db10ba59a4404a32b54953fc2b99ab1d386b2cef7ae470850cdf95"),
    ("#22", 6, "9cafaef5c23f555314955c9d980c9a07ca85fd1e0443e8d95367c3a1dfd6bad4"),
    ("#23", 3, "a1588d16efe4c8d4351b70b6ac22c7fb3f066bf95d4e1e124c00ffbcac50286d"),
    ("#24", 3, "591145a43213e2619da7bfe15f19656c77c3a0f15da9fa78e2b4f4e169847544"),
    ("#25", 6, "3310495f3748d7505beec38c5faec9d3ab2bea87290c6f6d5c5d4b93263fa52c"),
    ("#26", 4, "a6906ca2b94b9d7760d61f8333a089b999e016c2ccb88839ec35f6280cfaab72"),
    ("#27", 3, "63c0aab7e97ca8fc1675255283e1e301444b82adf0447bc10523043591aafde9"),
    ("#28", 4, "29d1640e1dea92f3db027bbb716a6e09f262c3bd99b09fecb8c0ae023ff145da"),
    ("#29", 4, "740b5ad169488853426220646c93b6165d27db12f5c65225966235361d3e99fa"),
    ("#30", 5, "4e5bc0c44e1db9c93da2c7c5e3e12e9137d962099d45c466003579f95886a599"),
    ("#31", 6, "ab181c8fd191f8db9e31543d36c789baf762494b46474c38fb99d264ea9acdf4"),
    ("#32", 3, "b0fdb965ec75461cfcef27d0201ec9fdf35c72dae62b26df1484c06cb287d358"),
    ("#33", 6, "773bd3e1281a9fdd0c686e8cb412fdf5ada61cc02a87d6dbca7fd4a25bb849b8"),
    ("#34", 3, "0ddd64d2427a77617f77103abd0a4cf780efb9c0c9642e2f6dc459691b431b83"),
    ("#35", 4, "5b39aa736200bba8001aa7e7a5af76c11390d6fea1e9181ae2ca1c230ea06c66"),
    ("#36", 4, "5451802b3678606c350ded5d4f405efaadd1fd079d0bc9a2a45be55e7fc2a84b"),
    ("#37", 6, "6faca5a26d8bdb12dc4145b268878f2b71a46c914cea6a71f4fd16c46c68be84"),
    ("#38", 5, "6976c15faba64bb88e1251a95ebbeee267687332f5bd8defc9e2546b27635642"),
    ("#39", 5, "78f8cc7bce4cf108ba32b8ab4429b61091c8822ef5efda1e3a273d5f34669c54"),
    ("#40", 4, "9106ea0f9a05bf5a17442422ce5abcc4d8ca45f30766464f53082b275988c5f0"),
    ("#41", 5, "9f4c7af40d6e43e4d9a1d650adad6076637fe41627859249da65a0a92cb6a605"),
    (_CPP_BUFFER + "#1", 6, "a688e4a7b8f8c5af6b145bdb2b9664124dfb63efa80d3e333dd5822740525c1e"),
    (_CPP_BUFFER + "#2", 4, "d31f24c0552046702e008563bff1996a5e15bdb3a05135413bcd99938bbede19"),
    (_CPP_BUFFER + "#3", 5, "f55c99c9cea0f01619054fba4d9d67fd4b669aa286254e564d4b5bd2af3e8a14"),
    (_CPP_BUFFER + "#4", 3, "7215761f4e8304d0f6f3e3939f6ae36092be043288480e7d7e554b4625fc92ee"),
)
"""Their names' ends, numbers of parameters and the SHA-256 of their bodies. The array is the last parameter of those that
make slices, and the second of those that get buffers."""

_EMPTY = (
    ("array_empty", "a3cabba7648e94c88c8b08a01cfffc1bb6eb13c9b83fe00c28c5e369eb8c3a75"),
    ("array_empty_like", "9a8b8d48401eea83e63227d2ce8e9ceb386b7f08ee12033c0bea0ed9e20b6949"),
)
_OVERFLOW_ERROR = 26079564

MESSAGE = (
    "a number in an array of 64-bit integers does not fit the 32 bits with which this compiled function computes in the "
    "sandbox; use smaller numbers, or floats"
)


def _wat() -> tuple[str, tuple[tuple[str, str], ...]]:
    imports = bodies = ""
    expected = []
    listed = [(_SLICES + end, many, many - 1, digest) for end, many, digest in _OF_SLICES]
    listed += [(_BUFFERS + end, many, 1, digest) for end, many, digest in _OF_BUFFERS]
    for place, (name, many, array, digest) in enumerate(listed):
        params = "(param" + " i32" * many + ")"
        gets = " ".join(f"(local.get {one})" for one in range(many))
        imports += f'  (import "original" "{name}" (func $o{place} {params} (result i32)))\n'
        bodies += f"""
  (func (export "{name}") {params} (result i32)
    (local $narrow i32) (local $result i32)
    (local.set $result (call $o{place} {gets}))
    (if (i32.ne (local.get $result) (i32.const -1)) (then (return (local.get $result))))
    (if (i32.eqz (call $may_narrow (local.get {array}))) (then (return (local.get $result))))
    (call $clear)
    (local.set $narrow (call $narrowed (local.get {array})))
    (if (i32.eqz (local.get $narrow)) (then (return (i32.const -1))))
    (local.set {array} (local.get $narrow))
    (local.set $result (call $o{place} {gets}))
    (call $release (local.get $narrow))
    (local.get $result))
"""
        expected.append((name, digest))
    text = files(__package__).joinpath("buffers.wat").read_text(encoding="utf-8")
    text = text.replace("@REFUSAL@", refusal(_OVERFLOW_ERROR, MESSAGE))
    return text.replace("@IMPORTS@", imports).replace("@WRAPPERS@", bodies), (*expected, *_EMPTY)


_TEXT, _EXPECTED = _wat()
_WIDTH = "i32.load\ni32.const 7\ni32.{}"

BUFFERS: tuple[AnyPatch, ...] = (
    Donor(
        name="indices-for-extensions",
        why=(
            "Extensions made by Cython (scipy, pandas, scikit-learn, statsmodels) take arrays of 64-bit integers where "
            "they ask for the type of indices, `long` or `Py_ssize_t`. A number that does not fit 32 bits is an `OverflowError`; "
            "`np.empty` of 64-bit integers holds zeros, which fit."
        ),
        expected=_EXPECTED,
        wat=_TEXT,
    ),
    Edit(
        name="indices-given-back",
        why="What an extension wrote to such a copy is given back without a warning when the buffer is released.",
        function="_clear_array_attributes",
        expected="i32.const 0\ni32.load offset=26079820\ni32.const 18235522\ni32.const 1\ncall PyErr_WarnEx",
        replacement="i32.const 0",
    ),
    *(
        Edit(
            name=f"int32-for-{function}" + (f"-{place + 1}" if many > 1 else ""),
            why="It takes `np.int32`, which is the type of a C `int` here, and asked for the type number of a C `long`.",
            function=function,
            expected=_WIDTH.format(way),
            replacement=f"i32.load\ni32.const -3\ni32.and\ni32.const 5\ni32.{way}",
            occurrence=0,  # those before it are replaced already
        )
        for function, many, way in (
            ("lbfgsb_setulb", 6, "eq"),
            ("slsqp", 1, "eq"),
            ("dvode_wrapper", 1, "ne"),
            ("zvode_wrapper", 1, "ne"),
            ("__pyx_pw_6pandas_5_libs_5algos_47ensure_int32", 1, "eq"),
        )
        for place in range(many)
    ),
)
"""This part of the table."""
