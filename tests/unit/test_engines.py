"""What an engine is given lies in memory as it reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared import cuda, engines


@pytest.mark.parametrize(("layout", "order"), [("LINEAR", (0, 1, 2, 3)), ("HWC8", (0, 2, 3, 1))])
def test_an_input_is_laid_out_as_the_engine_reads_it(
    monkeypatch: pytest.MonkeyPatch, layout: str, order: tuple[int, ...]
) -> None:
    trt = SimpleNamespace(
        TensorFormat=SimpleNamespace(LINEAR="LINEAR", HWC8="HWC8"),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        nptype=lambda kind: kind,
    )
    engine = SimpleNamespace(
        num_io_tensors=1,
        get_tensor_name=lambda index: "canvas",
        get_tensor_mode=lambda name: "in",
        get_tensor_format=lambda name: layout,
        get_tensor_shape=lambda name: (1, 8, 2, 3),
        get_tensor_dtype=lambda name: np.float16,
    )
    uploaded: list[Any] = []
    nothing = SimpleNamespace(
        memory={"canvas": SimpleNamespace(address=0)},
        shapes={},
        enqueue=lambda: None,
        stream=SimpleNamespace(synchronize=lambda: None),
    )
    monkeypatch.setattr(engines, "bind", lambda *_: nothing)
    monkeypatch.setattr(cuda, "upload", lambda address, array: uploaded.append(array))
    canvas = np.arange(48, dtype=np.float32).reshape(1, 8, 2, 3)
    engines.run_once(trt, engine, {"canvas": canvas})
    (array,) = uploaded
    assert array.dtype == np.float16 and array.flags.c_contiguous
    np.testing.assert_array_equal(array, canvas.transpose(order))
