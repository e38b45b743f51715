"""Info pickles: what NumPy and Python write comes back; whatever could run code is refused before it runs."""

from __future__ import annotations

import builtins
import collections
import datetime
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.unpickle import load_pickle
from shared.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def written(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "infos.pkl"
    file.write_bytes(content)
    return file


def old_names(content: bytes) -> bytes:
    """The same pickle as NumPy 1 writes it. Up to protocol 3: from 4 on, names have their lengths before them."""
    return content.replace(b"numpy._core.", b"numpy.core.")


ARRAYS: list[Any] = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    np.zeros((0, 4), np.float32),
    np.array(3, np.int64),
    np.array([True, False]),
    np.array(["car", "pedestrian"]),
    np.array([b"ab", b"c"]),
    np.array([1, 2], ">i4"),
    np.array([1 + 2j]),
    np.array([{"a": 1}, None, "text"], dtype=object),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back(tmp_path: Path, array: Any, protocol: int) -> None:
    back = load_pickle(written(tmp_path, pickle.dumps(array, protocol)))
    assert isinstance(back, np.ndarray)
    assert back.dtype == pickle.loads(pickle.dumps(array, protocol)).dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()
    back.flags.writeable = True


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(-1e300), np.int64(-5), np.bool_(True), np.str_("zebra"), np.uint8(255), np.str_("")],
    ids=repr,
)
def test_scalars_come_back(tmp_path: Path, value: Any, protocol: int) -> None:
    back = load_pickle(written(tmp_path, pickle.dumps([value, value], protocol)))
    assert back == [value, value]
    assert type(back[0]) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_and_dates_come_back(tmp_path: Path, protocol: int) -> None:
    value = {
        "metainfo": collections.OrderedDict(classes=("car", "bus")),
        "counts": collections.defaultdict(list, {"car": [1]}),
        "seen": {1, 2},
        "frozen": frozenset({"a"}),
        "raw": bytearray(b"\x00\xff"),
        "bytes": b"\x80",
        "z": 1 + 2j,
        "made": datetime.datetime(2026, 11, 20, 6, 7, 8, 9, datetime.timezone.utc),
        "took": datetime.timedelta(seconds=1.5),
        "nan": [float("inf"), None, True, 1 << 80],
    }
    assert load_pickle(written(tmp_path, pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(4))
def test_names_of_numpy_1_work_too(tmp_path: Path, protocol: int) -> None:
    value = {"box": np.arange(7.0), "valid": np.bool_(True)}
    content = old_names(pickle.dumps(value, protocol))
    assert b"numpy.core" in content
    assert b"numpy._core" not in content
    back = load_pickle(written(tmp_path, content))
    assert back["valid"] == np.bool_(True)
    np.testing.assert_array_equal(back["box"], value["box"])


@settings(max_examples=60)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_plain_data_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    file = written(tmp_path_factory.mktemp("pickle"), pickle.dumps(value, protocol))
    assert load_pickle(file) == value


# --- attacks ---------------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of ``function``: what an attacker writes."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def attacks(witness: Path) -> dict[str, tuple[Any, tuple[Any, ...], str]]:
    """Function (or calls that end in one), its arguments, and the name that the refusal must give."""
    touch = f"touch {witness}"
    python = f"open({str(witness)!r}, 'w').close()"
    return {
        "os.system": (os.system, (touch,), "posix.system"),
        "eval": (builtins.eval, (python,), "builtins.eval"),
        "exec": (builtins.exec, (python,), "builtins.exec"),
        "import": (builtins.__import__, ("antigravity",), "builtins.__import__"),
        "open": (builtins.open, (str(witness), "w"), "io.open"),
        "popen": (subprocess.Popen, (["touch", str(witness)],), "Popen"),
        "getattr": (getattr, (Calls(builtins.__import__, "os"), "system"), "builtins.getattr"),
        "nested": (Calls(getattr, Calls(builtins.__import__, "os"), "system"), (touch,), "builtins.getattr"),
        "numpy.load": (np.load, (str(witness),), "numpy.load"),
        "numpy.fromfile": (np.fromfile, (str(witness),), "numpy"),
        "numpy.save": (np.save, (str(witness), 1), "numpy.save"),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", list(attacks(Path("x"))))
def test_attack_is_refused_and_named(tmp_path: Path, attack: str, protocol: int) -> None:
    witness = tmp_path / "witness"
    function, arguments, named = attacks(witness)[attack]
    if isinstance(function, Calls):
        content = pickle_of_nested_call(function, arguments, protocol)
    else:
        content = pickle.dumps({"metainfo": {}, "data_list": [Calls(function, *arguments)]}, protocol)
    file = written(tmp_path, content)
    with pytest.raises(InputError) as refused:
        load_pickle(file)
    assert refused.value.exit_code == 3
    assert str(file) in str(refused.value)
    assert named.removeprefix("builtins") in str(refused.value), "builtins was called __builtin__ before protocol 3"
    assert "\n" not in str(refused.value)
    assert not witness.exists()


def pickle_of_nested_call(function: Any, arguments: tuple[Any, ...], protocol: int) -> bytes:
    """``getattr(__import__('os'), 'system')(...)``, whose callable is itself the result of calls."""
    inner = pickle.dumps(function, protocol)[: -len(pickle.STOP)]
    rest = pickle.dumps(arguments, protocol)
    header = pickle.PROTO + bytes([protocol]) if protocol >= 2 else b""
    body = rest[len(header) :]
    if protocol >= 4:  # drop the frame header of the second pickle
        body = body[9:] if body[:1] == pickle.FRAME else body
    return inner + body[: -len(pickle.STOP)] + pickle.REDUCE + pickle.STOP


def test_the_attacks_would_work_on_plain_pickle(tmp_path: Path) -> None:
    """Otherwise the test above shows nothing."""
    witness = tmp_path / "witness"
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {witness}")))
    assert witness.exists()


def test_refused_class_is_not_imported(tmp_path: Path) -> None:
    module = "antigravity_of_this_test"
    (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')")
    file = written(tmp_path, f"c{module}\nThing\n.".encode())
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(InputError, match=rf"{module}\.Thing"):
            load_pickle(file)
    finally:
        sys.path.remove(str(tmp_path))
    assert module not in sys.modules


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ncore.os.system\n.",  # dotted attribute walk
        b"cnumpy._core.multiarray\nset_string_function\n.",
        b"cbuiltins\ngetattr\n.",
        b"c__builtin__\neval\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"cfunctools\npartial\n.",
        b"coperator\nattrgetter\n.",
        b"ctorch\nload\n.",
        b"i\n\n.",
    ],
)
def test_handwritten_globals_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError):
        load_pickle(written(tmp_path, content))


def test_structured_dtypes_are_refused(tmp_path: Path) -> None:
    """NumPy trusts their flags: with the wrong ones it takes bytes for pointers to objects."""
    for content in (pickle.dumps(np.zeros(1, [("a", "O")]), 2), pickle.dumps(np.zeros(2, [("x", "f4")]), 4)):
        with pytest.raises(InputError, match="dtype"):
            load_pickle(written(tmp_path, content))


def build(callable_line: bytes, arguments: Any, state: Any) -> bytes:
    """REDUCE then BUILD, as protocol 2."""
    strip = slice(2, -1)
    return (
        b"\x80\x02" + callable_line + pickle.dumps(arguments, 2)[strip] + b"R" + pickle.dumps(state, 2)[strip] + b"b."
    )


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ((3, "|", None, ("a",), {"a": 1}, 8, 1, 63), "structured"),
        ((3, "|", ("f4", (2,)), None, None, 8, 1, 0), "structured"),
        ((3, "evil", None, None, None, -1, -1, 0), "structured"),
    ],
)
def test_dtype_states_are_checked(tmp_path: Path, state: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        load_pickle(written(tmp_path, build(b"cnumpy\ndtype\n", ("f8", 0, 1), state)))


def test_arrays_can_not_read_beyond_their_bytes(tmp_path: Path) -> None:
    """A shape larger than the bytes, and objects out of raw bytes."""
    good = pickle.dumps(np.arange(4.0), 2)
    grown = good.replace(b"K\x04\x85", b"K\x7f\x85")
    assert grown != good
    with pytest.raises(InputError):
        load_pickle(written(tmp_path, grown))
    objects = good.replace(b"f8", b"O8")
    with pytest.raises(InputError, match="can't be restored"):
        load_pickle(written(tmp_path, objects))


def test_shared_state_can_not_be_changed(tmp_path: Path) -> None:
    """BUILD on what find_class returns would change it for every later load."""
    for target in (
        b"cnumpy\ndtype\n",
        b"c_codecs\nencode\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cbuiltins\ndict\n",
    ):
        state = pickle.dumps((None, {"__call__": 1, "name": 2, "x": 3}), 2)[2:-1]
        with pytest.raises(InputError):
            load_pickle(written(tmp_path, b"\x80\x02c" + target + b"\n" + state + b"b."))
    test_arrays_come_back(tmp_path, np.arange(3.0), 2)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"\x80\x04\x95", pickle.dumps({"a": [1] * 99})[:-20], b"\x80\xff."]
)
def test_broken_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError) as error:
        load_pickle(written(tmp_path, content))
    assert "\n" not in str(error.value)


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_any_flipped_byte_gives_data_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    content = bytearray(
        pickle.dumps({"a": np.arange(5.0), "b": [np.float32(1), "text", {1}], "c": {"d": (1, None)}}, 2)
    )
    content[position % len(content)] = value
    file = written(tmp_path_factory.mktemp("flip"), bytes(content))
    try:
        load_pickle(file)
    except InputError as error:
        assert str(file) in str(error)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pkl"):
        load_pickle(tmp_path / "none.pkl")


# --- what could crash or stall the interpreter -----------------------------------------------------------------------

ENCODED_B = b"c_codecs\nencode\nX\x01\x00\x00\x00bX\x06\x00\x00\x00latin1\x86R"
RECONSTRUCT = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + ENCODED_B + b"\x87R"


def array_state(shape: Any, dtype: str, content: Any) -> bytes:
    """An array of ``_reconstruct`` with this state."""
    strip = slice(2, -1)
    state = (
        b"(K\x01" + pickle.dumps(shape, 2)[strip] + b"cnumpy\ndtype\n" + pickle.dumps((dtype, 0, 1), 2)[strip] + b"R"
    )
    return RECONSTRUCT + state + b"\x89" + pickle.dumps(content, 2)[strip] + b"tb."


def test_an_array_of_the_right_state_is_read(tmp_path: Path) -> None:
    """Otherwise the refusals below show nothing."""
    assert load_pickle(written(tmp_path, array_state((2,), "O8", ["a", None]))).tolist() == ["a", None]


@pytest.mark.parametrize(
    ("shape", "dtype", "content"),
    [
        ((1000,), "O8", []),
        ((2,), "O8", ["a"]),
        ((1,), "O8", ["a", "b"]),
        ((0, 1 << 62), "f8", b""),
        ((1 << 62, 4), "f8", b""),
        ((-1,), "f8", b""),
        ((True,), "f8", b"12345678"),
        ((1 << 40,), "S0", b""),
        ((1,) * 70, "f8", b"12345678"),
        ((1,), "U1", b"\xff\xff\xff\xff"),
        ([2], "O8", ["a", "b"]),
    ],
)
def test_arrays_hold_what_their_shape_says(tmp_path: Path, shape: Any, dtype: str, content: Any) -> None:
    with pytest.raises(InputError):
        load_pickle(written(tmp_path, array_state(shape, dtype, content)))


def nested_tuples(depth: int) -> bytes:
    return b")" + b"\x85" * depth


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x80\x02}" + nested_tuples(300_000) + b"Ns.", id="deep key is hashed"),
        pytest.param(b"\x80\x02}" + b")q\x00h\x00\x86" + b"q\x01h\x01\x86" * 60 + b"Ns.", id="doubled key is hashed"),
        pytest.param(b"\x80\x04\x8f(" + nested_tuples(300_000) + b"\x90.", id="deep member is hashed"),
        pytest.param(b"\x80\x04(" + nested_tuples(300_000) + b"\x91.", id="deep member of a frozenset is hashed"),
        pytest.param(b"\x80\x02cbuiltins\nset\n](" + nested_tuples(9) + b"e\x85R.", id="deep member of a list"),
        pytest.param(b"\x80\x02]r\xff\xff\xff\x7f.", id="memo of 32 GB"),
        pytest.param(b"(lp2000000000\n.", id="memo of 32 GB as text"),
        pytest.param(b"\x80\x02cbuiltins\nbytes\nJ\x00\xf2\x05*\x85R.", id="bytes of 700 MB"),
        pytest.param(b"\x80\x02cbuiltins\nbytearray\nJ\x00\xf2\x05*\x85R.", id="bytearray of 700 MB"),
        pytest.param(b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.", id="array of 2 GB"),
        pytest.param(b"\x80\x04X\xff\xff\xff\x7f.", id="text of 2 GB"),
        pytest.param(b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.", id="text of 1 TB"),
        pytest.param(b"\x80\x04]q\x00" + b"(h\x00h\x00lq\x00" * 60 + b".", id="doubled list"),
        pytest.param(b"\x80\x04]q\x00h\x00a.", id="list in itself"),
        pytest.param(b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".", id="deep list"),
        pytest.param(b"\x80\x02\x8b\xff\xff\xff\x7f.", id="integer of 2 GB"),
        pytest.param(b"I" + b"9" * 4000 + b"\n.", id="integer of 4000 digits"),
        pytest.param(RECONSTRUCT + b".", id="array without state"),
        pytest.param(b"\x80\x02cdatetime\ndate\nU\x04\x07\xea\x01\xff\x85R.", id="day 255"),
        pytest.param(b"\x80\x02}(K\x01\x8a\x09" + b"\xff" * 8 + b"\x7fNu.", id="key of 72 bits"),
    ],
)
def test_what_costs_memory_or_stack_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError):
        load_pickle(written(tmp_path, content))


def test_arrays_of_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    """They are freed one in the other: some ten thousand levels end in a segmentation fault."""
    inner = np.array([None, 1], dtype=object)
    outer = np.empty(1, dtype=object)
    outer[0] = inner
    with pytest.raises(InputError, match="arrays of objects"):
        load_pickle(written(tmp_path, pickle.dumps(outer)))


def test_a_restored_array_is_not_restored_again(tmp_path: Path) -> None:
    state = array_state((2,), "O8", ["a", None])
    again = state[len(RECONSTRUCT) :]
    with pytest.raises(InputError, match="second time"):
        load_pickle(written(tmp_path, state[:-1] + again))


def test_frames_hide_nothing(tmp_path: Path) -> None:
    """A frame that ends in the middle of an opcode makes the interpreter lose its place."""
    short = b"\x80\x04\x95\x02" + b"\x00" * 7 + b"X\x04\x00\x00\x00text."
    assert load_pickle(written(tmp_path, short)) == "text"


def test_text_shared_by_many_values_is_read(tmp_path: Path) -> None:
    shared = [list(range(50))] * 10_000
    assert load_pickle(written(tmp_path, pickle.dumps(shared))) == shared


def test_pipe_in_place_of_the_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "infos.pkl")
    with pytest.raises(InputError, match="pipe"):
        load_pickle(tmp_path / "infos.pkl")
