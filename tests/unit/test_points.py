"""Point files: every format gives the same points; wrong lengths and missing columns are said in one line."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data import PointFile, read_points
from shared.errors import ConfigError, InputError

RNG = np.random.default_rng(7)


def cloud(count: int = 50) -> np.ndarray:
    points = RNG.normal(0, 20, (count, 5)).astype(np.float32)
    points[:, 4] = np.arange(count) % 32
    return points


def pcd_header(fields: str, kind: str, count: int) -> bytes:
    names = fields.split()
    sizes = " ".join("2" if name == "ring" else "4" for name in names)
    types = " ".join("U" if name == "ring" else "F" for name in names)
    ones = " ".join("1" for _ in names)
    return (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {types}\nCOUNT {ones}\n"
        f"WIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {kind}\n"
    ).encode()


ROW = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")])


def rows_of(points: np.ndarray) -> np.ndarray:
    rows = np.empty(len(points), ROW)
    for column, name in enumerate(ROW.names):
        rows[name] = points[:, column]
    return rows


def write_ascii(path: Path, points: np.ndarray) -> None:
    lines = [" ".join(repr(float(value)) for value in row[:4]) + f" {int(row[4])}" for row in points]
    path.write_bytes(pcd_header("x y z intensity ring", "ascii", len(points)) + "\n".join(lines).encode())


def write_binary(path: Path, points: np.ndarray) -> None:
    path.write_bytes(pcd_header("x y z intensity ring", "binary", len(points)) + rows_of(points).tobytes())


def lzf_literals(content: bytes) -> bytes:
    """LZF without any copies: valid, if pointless."""
    pieces = (content[start : start + 32] for start in range(0, len(content), 32))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def compress_lzf(content: bytes) -> bytes:
    """A small greedy LZF encoder, written from the format: copies of up to 264 bytes, at most 8192 back."""
    out, literals, position = bytearray(), bytearray(), 0

    def flush() -> None:
        out.extend(lzf_literals(bytes(literals)))
        literals.clear()

    while position < len(content):
        piece = content[position : position + 3]
        start = content.rfind(piece, max(0, position - 8192), position + 2) if len(piece) == 3 else -1
        if start < 0 or start >= position:
            literals.append(content[position])
            position += 1
            continue
        length = 3
        while (
            length < 264 and position + length < len(content) and content[start + length] == content[position + length]
        ):
            length += 1
        flush()
        back, coded = position - start - 1, length - 2
        if coded < 7:
            out += bytes([(coded << 5) | (back >> 8), back & 255])
        else:
            out += bytes([(7 << 5) | (back >> 8), coded - 7, back & 255])
        position += length
    flush()
    return bytes(out)


def write_compressed(path: Path, points: np.ndarray) -> None:
    rows = rows_of(points)
    plain = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in ROW.names)
    compressed = compress_lzf(plain)
    header = pcd_header("x y z intensity ring", "binary_compressed", len(points))
    path.write_bytes(header + struct.pack("<II", len(compressed), len(plain)) + compressed)


def write_bin(path: Path, points: np.ndarray) -> None:
    points.astype("<f4").tofile(path)


def write_npz(path: Path, points: np.ndarray) -> None:
    np.savez(path, xyz=points[:, :3], intensity=points[:, 3], laser_number=points[:, 4], offset_ns=points[:, 0])


def write_npy(path: Path, points: np.ndarray) -> None:
    np.save(path, points.astype(np.float64))


WRITERS = [
    ("a.pcd.bin", write_bin),
    ("a.bin", write_bin),
    ("ascii.pcd", write_ascii),
    ("binary.pcd", write_binary),
    ("compressed.pcd", write_compressed),
    ("a.npz", write_npz),
    ("a.npy", write_npy),
]


@pytest.mark.parametrize(("name", "write"), WRITERS)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_every_format_gives_the_same_points(
    tmp_path: Path, name: str, write: Callable[[Path, np.ndarray], None], count: int
) -> None:
    points = cloud(count)
    write(tmp_path / name, points)
    read = read_points(PointFile(tmp_path / name, tmp_path, 5))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, points)
    read[:] = 0  # the caller's own


@settings(max_examples=300)
@given(
    st.sampled_from(WRITERS),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    st.integers(0, 3000),
)
def test_damaged_files_give_points_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    writer: tuple[str, Callable[[Path, np.ndarray], None]],
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    name, write = writer
    folder = tmp_path_factory.mktemp("damaged")
    write(folder / name, cloud(20))
    content = bytearray((folder / name).read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    (folder / name).write_bytes(content[:cut] if cut < len(content) else content)
    try:
        points = read_points(PointFile(folder / name, folder, 5))
        assert points.shape[1] == 5
    except InputError as error:
        assert name in str(error)


def test_nan_points_are_kept(tmp_path: Path) -> None:
    points = cloud(3)
    points[1, 0] = np.nan
    points[2, 3] = np.inf
    write_bin(tmp_path / "a.bin", points)
    np.testing.assert_array_equal(read_points(PointFile(tmp_path / "a.bin", tmp_path, 5)), points)


def test_a_length_that_is_no_whole_number_of_points(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(4 * 5 * 10 + 3))
    with pytest.raises(InputError, match=r"203 bytes.*5 float32 \(20 bytes") as error:
        read_points(PointFile(file, tmp_path, 5))
    assert error.value.exit_code == 3
    assert str(file) in str(error.value)


def test_a_missing_file_names_file_and_data_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_points(PointFile(tmp_path / "lidar" / "1.bin", tmp_path, 5))
    assert str(tmp_path / "lidar" / "1.bin") in str(error.value)
    assert f"({tmp_path})" in str(error.value)


def test_an_unknown_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.las").write_bytes(b"")
    with pytest.raises(InputError, match=r"\.las"):
        read_points(PointFile(tmp_path / "a.las", tmp_path, 5))


def test_padding_and_intensity_scale(tmp_path: Path) -> None:
    """KITTI presented like nuScenes: reflectance to 0-255, a fifth column of zeros."""
    points = cloud(4)[:, :4]
    points[:, 3] = [0.0, 0.5, 0.25, 1.0]
    write_bin(tmp_path / "a.bin", points)
    file = PointFile(tmp_path / "a.bin", tmp_path, 4, pad_to=5, intensity_scale=255.0)
    assert file.columns == 5
    read = read_points(file)
    assert read.shape == (4, 5)
    np.testing.assert_array_equal(read[:, :3], points[:, :3])
    np.testing.assert_array_equal(read[:, 3], np.float32([0, 127.5, 63.75, 255]))
    np.testing.assert_array_equal(read[:, 4], 0)


def test_padding_below_the_columns_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pad_to"):
        PointFile(tmp_path / "a.bin", tmp_path, 5, pad_to=4)


# --- .pcd ------------------------------------------------------------------------------------------------------------


def test_pcd_without_ring_has_the_ring_of_t4(tmp_path: Path) -> None:
    points = cloud(3)
    content = pcd_header("x y z intensity", "binary", 3) + np.ascontiguousarray(points[:, :4]).tobytes()
    (tmp_path / "a.pcd").write_bytes(content)
    read = read_points(PointFile(tmp_path / "a.pcd", tmp_path, 5))
    np.testing.assert_array_equal(read[:, :4], points[:, :4])
    np.testing.assert_array_equal(read[:, 4], -1)


def test_pcd_fields_are_found_by_name(tmp_path: Path) -> None:
    """Other order, other names, fields that nobody asks for, padding fields, doubles."""
    dtype = np.dtype([("ts", "<f8"), ("i", "<u1"), ("pad", "<u1", (3,)), ("z", "<f8"), ("y", "<f4"), ("x", "<f4")])
    rows = np.zeros(4, dtype)
    rows["x"], rows["y"], rows["z"], rows["i"] = [1, 2, 3, 4], 5, 6.5, [0, 9, 255, 1]
    header = (
        "VERSION 0.7\nFIELDS ts i _ z y x\nSIZE 8 1 1 8 4 4\nTYPE F U U F F F\nCOUNT 1 1 3 1 1 1\n"
        "WIDTH 2\nHEIGHT 2\nDATA binary\n"
    )
    (tmp_path / "a.pcd").write_bytes(header.encode() + rows.tobytes())
    read = read_points(PointFile(tmp_path / "a.pcd", tmp_path, 4))
    np.testing.assert_array_equal(read, np.float32([[1, 5, 6.5, 0], [2, 5, 6.5, 9], [3, 5, 6.5, 255], [4, 5, 6.5, 1]]))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no DATA line"),
        (b"FIELDS x y z\n" + b"#" * 70000, "no DATA line"),
        (pcd_header("x y z intensity", "binary", 9) + bytes(10), "10 bytes of points .* promises 144"),
        (pcd_header("x y z intensity", "ascii", 9) + b"1 2 3 4\n", "1 lines of points .* promises 9"),
        (pcd_header("x y z intensity", "ascii", 1) + b"1 2 zebra 4\n", "zebra"),
        (pcd_header("x y z intensity", "ascii", 2) + b"1 2 3 4\n\n", "1 lines of points .* promises 2"),
        (pcd_header("x y z intensity", "ascii", 1) + b"1 2 3\n", "3 numbers a line .* promises 4"),
        (pcd_header("x y z", "binary", 1) + bytes(12), "no field 'intensity'"),
        (pcd_header("x y z intensity", "zipped", 1), "DATA zipped"),
        (pcd_header("x y z intensity", "binary", 1).replace(b"COUNT 1", b"COUNT 0"), "COUNT 0"),
        (pcd_header("x y z intensity", "binary", -1), "POINTS -1"),
        (pcd_header("x y z intensity", "binary_compressed", 1) + b"abc", "can't be read"),
        (b"FIELDS x y z\nSIZE 4 4\nTYPE F F F\nPOINTS 0\nDATA binary\n", "can't be read"),
    ],
)
def test_broken_pcd(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "a.pcd").write_bytes(content)
    with pytest.raises(InputError, match=why):
        read_points(PointFile(tmp_path / "a.pcd", tmp_path, 4))


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 3.5]), max_size=200))
def test_compressed_points_survive(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("pcd") / "a.pcd"
    points = np.float32([[value] * 4 + [7] for value in values]).reshape(-1, 5)
    write_compressed(path, points)
    np.testing.assert_array_equal(read_points(PointFile(path, path.parent, 5)), points)


@pytest.mark.parametrize("stream", [b"\x0fabc", b"\x20\x00", b"\x00a\xe0", b"\x00a", b"\x1f" + b"x" * 32])
def test_broken_lzf_is_refused(tmp_path: Path, stream: bytes) -> None:
    header = pcd_header("x y z intensity", "binary_compressed", 1)
    (tmp_path / "a.pcd").write_bytes(header + struct.pack("<II", len(stream), 16) + stream)
    with pytest.raises(InputError, match=r"a\.pcd: can't be read as a point cloud"):
        read_points(PointFile(tmp_path / "a.pcd", tmp_path, 4))


def test_a_small_file_asks_for_little_memory(tmp_path: Path) -> None:
    """One point whose header promises 4 GiB, and a padding field of 20 million entries."""
    header = pcd_header("x y z intensity", "binary_compressed", 1)
    (tmp_path / "a.pcd").write_bytes(header + struct.pack("<II", 2, 0xFFFFFFF0) + b"\x00a")
    (tmp_path / "b.pcd").write_bytes(
        pcd_header("x y z _", "ascii", 1).replace(b"COUNT 1 1 1 1", b"COUNT 1 1 1 20000000") + b"1 2 3 4\n"
    )
    tracemalloc.start()
    for name in ("a.pcd", "b.pcd"):
        with pytest.raises(InputError, match="can't be read as a point cloud"):
            read_points(PointFile(tmp_path / name, tmp_path, 3))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_ascii_as_others_write_it(tmp_path: Path) -> None:
    """Tabs, several spaces, blank lines, numbers with a point in a whole-number field, more lines than points."""
    header = pcd_header("x y z intensity ring", "ascii", 2)
    (tmp_path / "a.pcd").write_bytes(header + b"1\t2  3 nan 4.0 \n\n5 6 7 8e0 9\n1 1 1 1 1\n")
    read = read_points(PointFile(tmp_path / "a.pcd", tmp_path, 5))
    np.testing.assert_array_equal(read, np.float32([[1, 2, 3, np.nan, 4], [5, 6, 7, 8, 9]]))


# --- .npz and .npy ---------------------------------------------------------------------------------------------------


def test_npz_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=np.zeros((3, 4)))
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    for name in ("a.npz", "b.npz"):
        with pytest.raises(InputError, match="Argoverse 2 sweep"):
            read_points(PointFile(tmp_path / name, tmp_path, 5))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"x,y,z\n1,2,3\n", b"PK no zip", b""])
def test_what_is_no_numpy_file_is_not_called_a_pickle(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"it is no {suffix} file"):
        read_points(PointFile(file, tmp_path, 5))


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", xyz=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError):
            read_points(PointFile(tmp_path / name, tmp_path, 5))


def test_too_few_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(InputError, match="4 columns, expected 5"):
        read_points(PointFile(tmp_path / "a.npy", tmp_path, 5))
