"""What the process that opens a data set for the readers tells the one of the model."""

from __future__ import annotations

from multiprocessing import Pipe

from runtime.reader_process import _tell


def test_a_model_whose_process_ended_is_told_nothing() -> None:
    ours, theirs = Pipe()
    _tell(ours, "something")
    assert theirs.recv() == "something"
    theirs.close()
    _tell(ours, "more")
