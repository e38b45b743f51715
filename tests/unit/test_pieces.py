"""Pieces of a run: whoever answers which samples in whatever order, the files are those of one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InputError, ManifestError, UsageError
from shared.pieces import Piece, PieceHeader, PieceWriter, adopt_pieces
from shared.runs import Run, RunHeader, RunWriter
from shared.shards import Shard
from shared.tasks.detection3d import Boxes3D
from shared.work_path import WorkPath
from tests.support.run_files import run_header

COUNT = 9
RAW = [0, 4, 8]


def _header(count: int = COUNT, **changes: object) -> RunHeader:
    return run_header(count, **({"raw_samples": [index for index in RAW if index < count]} | changes))


def _boxes(index: int) -> Boxes3D:
    random = np.random.default_rng(index)
    count = index % 4
    return Boxes3D.build(random.normal(size=(count, 3)), random.random((count, 3)), random.random(count))


def _commit(writer: RunWriter | PieceWriter, index: int) -> None:
    raw = {"heatmap": np.full(4, index, np.float32)} if index in RAW else None
    writer.commit(index, _boxes(index), {"total": 1.0 + index}, {"voxels": index}, raw)


def _piece(folder: Path, samples: range, header: RunHeader | None = None, *, told: bool = False) -> Piece:
    writer = PieceWriter.open(folder, PieceHeader.of(header or _header(), samples))
    for index in samples:
        _commit(writer, index)
    contents = writer.finish()
    return Piece.open(folder, contents if told else None)


def _single(folder: Path) -> dict[str, bytes]:
    """The files of the run that one process gives."""
    writer = RunWriter.open(folder, _header())
    for index in range(COUNT):
        _commit(writer, index)
    return {name: (folder / name).read_bytes() for name in writer.finish()}


def _bounds(cuts: Sequence[int]) -> list[range]:
    edges = [0, *sorted(cuts), COUNT]
    return [range(first, end) for first, end in pairwise(edges)]


@settings(max_examples=25)
@given(
    cuts=st.lists(st.integers(0, COUNT), max_size=5),
    own=st.sets(st.integers(0, COUNT - 1)),
    twice=st.sets(st.integers(0, 5)),
    random=st.randoms(use_true_random=False),
)
def test_any_parts_in_any_order_give_the_run_of_one_process(cuts, own, twice, random, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("pieces")
    expected = _single(root / "single")
    ranges = _bounds(cuts)
    ranges += [ranges[index] for index in twice if index < len(ranges)]
    random.shuffle(ranges)
    pieces = [
        _piece(root / f"piece-{number}", samples, told=random.random() < 0.5) for number, samples in enumerate(ranges)
    ]
    writer = RunWriter.open(root / "run", _header())
    mine = list(own)
    random.shuffle(mine)
    for index in mine:
        _commit(writer, index)
    assert sum(writer.adopt(piece) for piece in pieces) == COUNT - len(own)
    assert writer.missing() == []
    assert {name: (root / "run" / name).read_bytes() for name in writer.finish()} == expected


def test_a_writer_that_was_killed_takes_the_pieces_in_again(tmp_path: Path) -> None:
    expected = _single(tmp_path / "single")
    for first in (0, 3, 6):
        _piece(tmp_path / "pieces" / str(first), range(first, first + 3))
    writer = RunWriter.open(tmp_path / "run", _header())
    _commit(writer, 4)
    assert adopt_pieces(writer, WorkPath(tmp_path, "pieces")) == COUNT - 1
    # A kill here: what was taken in is in its pieces still.
    writer = RunWriter.open(tmp_path / "run", _header())
    assert writer.done == {4}
    assert adopt_pieces(writer, WorkPath(tmp_path, "pieces")) == COUNT - 1
    assert {name: (tmp_path / "run" / name).read_bytes() for name in writer.finish()} == expected


def test_a_finished_run_takes_nothing_in(tmp_path: Path) -> None:
    _single(tmp_path / "run")
    writer = RunWriter.open(tmp_path / "run", _header())
    assert writer.adopt(_piece(tmp_path / "piece", range(3))) == 0


def test_a_piece_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    header = PieceHeader.of(_header(), range(3, 7))
    writer = PieceWriter.open(tmp_path, header)
    _commit(writer, 3)
    _commit(writer, 4)
    writer = PieceWriter.open(tmp_path, header)
    assert writer.missing() == [5, 6]
    with pytest.raises(InputError, match="not finished"):
        Piece.open(tmp_path)
    with pytest.raises(InputError, match="2 samples are not finished, the first is 5"):
        writer.finish()
    for index in (5, 6):
        _commit(writer, index)
    writer.finish()
    piece = Piece.open(tmp_path)
    assert piece.header.samples == range(3, 7)
    assert piece.predictions(5).centers.tolist() == _boxes(5).centers.tolist()
    assert piece.counters() == {"voxels": 3 + 4 + 5 + 6}


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"details": {"threads": 2}}, {"dataset": "other"}])
def test_a_piece_of_another_run_begins_anew_and_is_not_taken_in(tmp_path: Path, change: dict[str, object]) -> None:
    piece = _piece(tmp_path / "piece", range(3), _header(**change))
    writer = RunWriter.open(tmp_path / "run", _header())
    (name,) = change
    with pytest.raises(InputError, match=f"piece of another run: its {name} differ"):
        writer.adopt(piece)
    assert writer.missing() == list(range(COUNT))
    assert PieceWriter.open(tmp_path / "piece", PieceHeader.of(_header(), range(3))).missing() == [0, 1, 2]


def test_a_piece_of_fewer_samples_is_not_taken_in(tmp_path: Path) -> None:
    piece = _piece(tmp_path / "piece", range(3), _header(COUNT - 1))
    with pytest.raises(InputError, match="another run: its raw_samples differ"):
        RunWriter.open(tmp_path / "run", _header()).adopt(piece)


@pytest.mark.parametrize("name", ["piece.json", "journal.jsonl", "journal.bin", "raw/000004.npz"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_piece_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    _piece(tmp_path / "piece", range(3, 6))
    path = tmp_path / "piece" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[:-3])
    with pytest.raises(InputError, match=path.name):
        Piece.open(tmp_path / "piece")
    writer = RunWriter.open(tmp_path / "run", _header())
    assert adopt_pieces(writer, WorkPath(tmp_path, "")) == 0, "its samples stay missing"


def test_a_piece_is_that_of_which_its_writer_told(tmp_path: Path) -> None:
    writer = PieceWriter.open(tmp_path, PieceHeader.of(_header(), range(3, 6)))
    for index in range(3, 6):
        _commit(writer, index)
    contents = writer.finish()
    _rewrite(tmp_path, 1, counters={"voxels": 7})
    assert Piece.open(tmp_path).counters() == {"voxels": 3 + 7 + 5}
    with pytest.raises(InputError, match=r"journal\.jsonl: differs from the hash"):
        Piece.open(tmp_path, contents)
    other = _piece(tmp_path / "other", range(2)).journal.lines()
    _rewrite(tmp_path, 1, counters={"voxels": 4})
    with pytest.raises(InputError, match="lines of 2 samples, not 3"):
        Piece.open(tmp_path, replace(contents, lines=other))


def _rewrite(folder: Path, number: int, **values: object) -> None:
    """Change a line of a piece's journal, and give the files the hashes that they have then."""
    from shared.files import sha256_of_file

    lines = (folder / "journal.jsonl").read_text().splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | values)
    (folder / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
    finished = json.loads((folder / "finished.json").read_text())
    finished["files"] = {name: sha256_of_file(folder / name) for name in finished["files"]}
    (folder / "finished.json").write_text(json.dumps(finished))


@pytest.mark.parametrize(
    "values",
    [
        {"index": 99},
        {"index": "3"},
        {"start": -8},
        {"end": 1 << 60},
        {"latency_ms": {"total": "1"}},
        {"counters": {"voxels": 1.5}},
        {"arrays": {"detection3d/centers": ["|O", [1]]}},
        {"arrays": {"detection3d/centers": ["<f4", [-1, 3]]}},
        {"arrays": {"detection3d/centers": ["<f4", []]}},
        {"arrays": {}},
    ],
)
def test_lines_that_no_writer_writes_are_refused(tmp_path: Path, values: dict[str, object]) -> None:
    _piece(tmp_path, range(3, 6))
    _rewrite(tmp_path, 1, **values)
    with pytest.raises(InputError, match="lacks sample 4"):
        Piece.open(tmp_path)


def test_arrays_of_another_task_are_refused(tmp_path: Path) -> None:
    _piece(tmp_path, range(3, 4))
    line = json.loads((tmp_path / "journal.jsonl").read_text())
    renamed = {name.replace("centers", "corners"): value for name, value in line["arrays"].items()}
    _rewrite(tmp_path, 0, arrays=renamed)
    with pytest.raises(InputError, match=r"holds .*corners"):
        Piece.open(tmp_path)


def test_links_in_a_piece_are_not_followed(tmp_path: Path) -> None:
    _piece(tmp_path / "piece", range(3))
    secret = tmp_path / "secret"
    (tmp_path / "piece" / "journal.bin").rename(secret)
    (tmp_path / "piece" / "journal.bin").symlink_to(secret)
    with pytest.raises(ManifestError, match="symbolic link"):
        Piece.open(tmp_path / "piece")


@given(count=st.integers(0, 500), of=st.integers(1, 60))
def test_shards_are_a_partition_in_order(count: int, of: int) -> None:
    samples = [Shard(number, of).samples(count) for number in range(1, of + 1)]
    assert [index for part in samples for index in part] == list(range(count))
    assert max(map(len, samples)) - min(map(len, samples)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "x", "1/0", "-1/4", "1/4/2", "1.5/4", "/", "", "1/9999999"])
def test_what_names_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_an_unfinished_run_reads_its_pieces_where_they_are(tmp_path: Path) -> None:
    piece = _piece(tmp_path / "piece", range(COUNT))
    writer = RunWriter.open(tmp_path / "run", _header())
    writer.adopt(piece)
    shutil.rmtree(tmp_path / "piece")
    with pytest.raises((InputError, FileNotFoundError)):
        writer.finish()
    assert not (tmp_path / "run" / "predictions.npz").exists()
    writer = RunWriter.open(tmp_path / "run", _header())
    assert writer.missing() == list(range(COUNT))
    writer.adopt(_piece(tmp_path / "piece", range(COUNT)))
    writer.finish()
    assert len(Run.open(tmp_path / "run")) == COUNT
