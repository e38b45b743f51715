"""Letterboxing: the pixels that mmdet's own pipeline makes, channels, normalization, and where boxes go back to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.models.yolox.letterbox import letterbox, place
from runtime.models.yolox.parameters import CONVENTIONS, Letterbox
from tests.support import tiny_yolox as tiny

BGR = Letterbox(height=96, width=96, fill=114, color="bgr", resize="mmdet")


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxed(image: np.ndarray, settings_: Letterbox) -> tuple[np.ndarray, Any]:
    out = np.full((3, settings_.height, settings_.width), np.nan, np.float32)
    placement = letterbox(image, settings_, out)
    return out, placement


@pytest.mark.exporter
@pytest.mark.parametrize("size", [(120, 80), (80, 120), (96, 96), (33, 95), (191, 7), (7, 191), (500, 333), (1, 1)])
def test_pixels_and_scale_are_mmdets(size: tuple[int, int], tmp_path) -> None:
    import cv2
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    from exporter.mmcv_ops import provide_mmcv_ops

    provide_mmcv_ops()
    import mmdet.datasets.transforms  # noqa: F401

    image = noise(*size)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    steps: dict[str, Any] = {}
    exec(tiny.TRAINING_CONFIG, steps)
    with DefaultScope.overwrite_default_scope("mmdet"):
        packed = Compose(steps["test_pipeline"])({"img_path": str(tmp_path / "a.png"), "img_id": 0, "instances": []})
    ours, placement = boxed(image, BGR)
    np.testing.assert_array_equal(ours, packed["inputs"].numpy())
    assert (placement.scale_x, placement.scale_y) == packed["data_samples"].metainfo["scale_factor"]


def test_fill_and_corner() -> None:
    out, _ = boxed(np.zeros((40, 80, 3), np.uint8), BGR)
    assert (out[:, :48] == 0).all()
    assert (out[:, 48:] == 114).all()


def test_red_green_blue_and_normalization() -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    image[:] = (10, 20, 30)
    plain, _ = boxed(image, BGR)
    assert plain[:, 0, 0].tolist() == [10, 20, 30]
    settings_ = BGR.model_copy(update={"color": "rgb", "mean": (30.0, 10.0, 5.0), "std": (1.0, 2.0, 5.0)})
    turned, _ = boxed(image, settings_)
    assert turned[:, 0, 0].tolist() == [0.0, 5.0, 1.0]


def test_conventions_differ_where_they_say() -> None:
    image = noise(111, 70)
    results = {name: boxed(image, BGR.model_copy(update={"resize": name})) for name in CONVENTIONS}
    # 70 * 96 / 111 = 60.54 lines: rounded up by mmdet, cut off by the others, stretched to all.
    lines = {name: int((out != 114).any(axis=(0, 2)).sum()) for name, (out, _) in results.items()}
    assert lines == {"mmdet": 61, "mmdet_stretched": 96, "megvii": 60, "autoware": 60}
    assert np.abs(results["megvii"][0] - results["autoware"][0]).max() > 5  # linear and cubic
    assert results["megvii"][1].scale_y == pytest.approx(96 / 111)
    assert results["mmdet"][1].scale_y == pytest.approx(61 / 70)


@settings(max_examples=100)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(sorted(CONVENTIONS)))
def test_the_scaled_image_fits_and_fills_one_side(width: int, height: int, convention: str) -> None:
    settings_ = Letterbox(height=608, width=960, fill=114, color="bgr", resize=convention)
    placement, scaled_width, scaled_height = place(width, height, settings_)
    assert 1 <= scaled_width <= 960
    assert 1 <= scaled_height <= 608
    assert scaled_width >= 959 or scaled_height >= 607
    assert min(placement.scale_x, placement.scale_y) > 0
