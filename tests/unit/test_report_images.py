"""Pictures of the report: photos as the data set's readers see them, points where OpenCV's lens model puts them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from evaluator.report.images import draw_dots, jpeg, read_photo
from evaluator.report.lens import project_points
from shared.data.camera_image import read_camera_image
from shared.errors import InputError
from shared.images import read_image

# One set of coefficients a lens model of OpenCV, each twice: a mild lens and a strong one.
_LENSES = [
    [],
    [-0.3, 0.1, 0.001, -0.002],
    [-0.35, 0.2, -0.003, 0.002, -0.05],
    [0.4, 0.1, 0.001, -0.001, 0.01, 0.7, 0.2, 0.02],
    [0.4, 0.1, 0.001, -0.001, 0.01, 0.7, 0.2, 0.02, 0.003, -0.001, -0.002, 0.001],
    [0.4, 0.1, 0.001, -0.001, 0.01, 0.7, 0.2, 0.02, 0.003, -0.001, -0.002, 0.001, 0.05, -0.03],
]


@pytest.mark.parametrize("lens", _LENSES, ids=len)
def test_points_are_seen_where_opencv_sees_them(lens: list[float]) -> None:
    rng = np.random.default_rng(4)
    points = rng.uniform([-8, -4, 6], [8, 4, 40], (500, 3))
    intrinsics = np.array([[1200.0, 0, 960], [0, 1180.0, 540], [0, 0, 1]])
    coefficients = np.array(lens)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics, coefficients)[0][:, 0]
    np.testing.assert_allclose(project_points(points, intrinsics, coefficients), expected, atol=1e-8)


def _photo(path: Path, orientation: int | None = None) -> None:
    rows, columns = np.mgrid[:40, :60]
    pixels = np.stack([rows * 6, columns * 4, np.full_like(rows, 90)], -1).astype(np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=95, exif=exif)


@pytest.mark.parametrize("orientation", [None, 3, 6])
def test_photos_are_what_the_pipelines_read(tmp_path: Path, orientation: int | None) -> None:
    path = tmp_path / "photo.jpg"
    _photo(path, orientation)
    for upright, expected in ((True, read_image(path)), (False, read_camera_image(path))):
        photo = read_photo(path, upright=upright)
        assert photo.shape == expected.shape
        # Two decoders of the same file round differently.
        assert np.abs(photo.astype(int) - expected[..., ::-1]).max() <= 3


def test_gray_and_transparent_images_become_colored(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.png")
        assert read_photo(tmp_path / f"{mode}.png", upright=True).shape == (4, 5, 3)


@pytest.mark.parametrize("content", [None, b"", b"no image", b"half"])
def test_a_bad_photo_gets_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "photo.jpg"
    if content is not None:
        _photo(path)
        path.write_bytes(path.read_bytes()[:700] if content == b"half" else content)
    with pytest.raises(InputError, match=r"the image can't be read") as error:
        read_photo(path, upright=True)
    assert str(path) in str(error.value)


def _pixels(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_wide_photos_are_scaled_down() -> None:
    photo = np.full((100, 3200, 3), (200, 40, 60), np.uint8)
    small = np.array(_pixels(jpeg(photo, 1280, 82)))
    assert small.shape == (40, 1280, 3)
    assert np.abs(small.astype(int) - (200, 40, 60)).max() <= 4


def test_dots_are_round_filled_and_later_ones_cover_earlier() -> None:
    photo = np.zeros((20, 20, 3), np.uint8)
    dots = draw_dots(photo, np.array([[5.2, 9.9], [6.0, 9.0]]), np.array([[255, 0, 0], [0, 0, 255]], np.uint8), 2)
    assert not photo.any()
    assert dots[9, 6].tolist() == [0, 0, 255]
    assert dots[9, 3].tolist() == [255, 0, 0]
    assert not dots[5, 6].any()
