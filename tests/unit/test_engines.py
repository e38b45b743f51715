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


def test_layers_are_timed_with_the_inputs_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Profiler:
        """TensorRT's, which calls back."""

    trt = SimpleNamespace(
        TensorFormat=SimpleNamespace(LINEAR="LINEAR", HWC8="HWC8"),
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        DataType=SimpleNamespace(FLOAT=np.float32, HALF=np.float16),
        IProfiler=Profiler,
        nptype=lambda kind: kind,
    )
    names = ["points", "index", "mask"]
    engine = SimpleNamespace(
        num_io_tensors=3,
        get_tensor_name=lambda index: names[index],
        get_tensor_mode=lambda name: "in",
        get_tensor_format=lambda name: "LINEAR",
        get_tensor_dtype=lambda name: np.float32 if name == "points" else np.int32,
    )
    shapes: dict[str, tuple[int, ...]] = {"points": (4, 2), "index": (4,), "mask": (4,)}
    bound = SimpleNamespace(
        memory={name: SimpleNamespace(address=place) for place, name in enumerate(names)},
        shapes=shapes,
        context=SimpleNamespace(),
        enqueue=lambda: bound.context.profiler.report_layer_time("gather", 0.5) if vars(bound.context) else None,
        stream=SimpleNamespace(synchronize=lambda: None),
    )
    uploaded: dict[int, Any] = {}
    monkeypatch.setattr(engines, "bind", lambda *_: bound)
    monkeypatch.setattr(cuda, "upload", uploaded.__setitem__)
    times = engines.layer_times(trt, engine, shapes=shapes, runs=3, given={"index": np.array([3, 1], np.int64)})
    assert times == {"gather": 0.5}
    assert uploaded.keys() == {0, 1}, "what is neither a number nor given stays zero"
    assert uploaded[0].shape == (4, 2)
    np.testing.assert_array_equal(uploaded[1], np.array([3, 1, 3, 3], np.int32), strict=True)
