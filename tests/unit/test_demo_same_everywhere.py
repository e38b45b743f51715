"""The demo's data set is the same to the bit on every NumPy and processor, by what it is computed with."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import elementary, jpeg
from demo.draws import Draws

ROOT = Path(__file__).parents[2]
# sha256 of dataset.json, which holds that of every file: two frames with images, seed 7. Another one is another data
# set: raise GENERATOR_VERSION, and look at the models' figures again.
DIGEST = "1255571b27eb11d57ec9a34d5ea89ea044aed0298e9dfd5e115937f52c05e5f8"


def digest_of_data(folder: Path, **environment: str) -> str:
    """Of a data set that another process generated."""
    command = [sys.executable, "-m", "demo", "generate", "--out", str(folder), "--frames", "2"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    answer = subprocess.run(command, env=variables, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return hashlib.sha256((folder / "dataset.json").read_bytes()).hexdigest()


def test_this_numpy_gives_the_recorded_data_set(tmp_path: Path) -> None:
    assert digest_of_data(tmp_path / "data") == DIGEST


def test_so_does_the_plainest_processor(tmp_path: Path) -> None:
    """Without the vector instructions that NumPy and its BLAS would choose here, fused multiplications among them."""
    module = sys.modules["numpy._core._multiarray_umath" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else
                         "numpy.core._multiarray_umath"]  # fmt: skip
    there = [name for name in module.__cpu_dispatch__ if module.__cpu_features__[name]]
    if not there:
        pytest.skip("this processor has nothing that NumPy would choose beyond its baseline")
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(there), "OPENBLAS_CORETYPE": "Nehalem"}
    assert digest_of_data(tmp_path / "data", **plain) == DIGEST


def test_so_does_another_numpy(tmp_path: Path) -> None:
    """1.26, whose sines differ from those of 2.x in their last bits."""
    if sys.version_info >= (3, 13):
        pytest.skip("NumPy 1.26 has no wheel for this Python")
    other = tmp_path / "numpy"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--target",
        str(other),
    ]
    answer = subprocess.run([*install, "numpy==1.26.4"], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(f"pip could not get NumPy 1.26: {answer.stderr.strip().splitlines()[-1:]}")
    assert digest_of_data(tmp_path / "data", PYTHONPATH=f"{other}{os.pathsep}{ROOT}") == DIGEST


def test_elementary_functions_are_those_of_mathematics() -> None:
    values = np.concatenate([np.linspace(-40, 40, 100_001), [0.0, -0.0, np.pi, np.pi / 2]])
    for mine, right in zip(elementary.sin_cos(values), (np.sin(values), np.cos(values)), strict=True):
        assert np.abs(mine - right).max() < 1e-15
    assert np.abs(elementary.exp(values) / np.exp(values) - 1).max() < 1e-15
    positive = np.exp(values)
    assert np.abs(elementary.log(positive) - values).max() < 2e-14
    x, y = np.random.default_rng(0).normal(size=(2, 100_000))
    assert np.abs(elementary.arctan2(y, x) - np.arctan2(y, x)).max() < 1e-15
    assert elementary.arctan2(0.0, -1.0) == np.pi and elementary.arctan2(0.0, 0.0) == 0.0


@pytest.mark.parametrize("seed", [[7, 2, 0], 5])
def test_draws_are_those_that_numpy_makes_of_the_bits(seed: int | list[int]) -> None:
    mine, numpys = Draws(seed), np.random.default_rng(seed)
    np.testing.assert_allclose(mine.normals((500, 1000)), numpys.normal(size=(500, 1000)), rtol=1e-14)
    for _ in range(3000):
        assert mine.exponential(3.0) == pytest.approx(numpys.exponential(3.0), rel=1e-14)
        assert mine.uniform(-2.0, 5.0) == numpys.uniform(-2.0, 5.0)
        assert mine.below(5) == numpys.integers(5)
        assert mine.choice("abc", [0.5, 0.3, 0.2]) == numpys.choice(list("abc"), p=[0.5, 0.3, 0.2])
        assert mine.choice([-1.0, 1.0]) == numpys.choice([-1.0, 1.0])
        assert mine.normal(1.0, 2.0) == pytest.approx(numpys.normal(1.0, 2.0), rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("shape", [(300, 480), (1, 1), (17, 33)])
def test_images_are_as_good_as_libjpegs(shape: tuple[int, int]) -> None:
    across, down = np.meshgrid(np.linspace(0, 6, shape[1]), np.linspace(0, 9, shape[0]))
    smooth = np.stack([np.sin(across), np.cos(down), np.sin(across + down)], -1) * 90 + 128
    noise = np.random.default_rng(0).normal(0, 20, (*shape, 3))
    for image in (np.clip(smooth, 0, 255).astype(np.uint8), np.clip(smooth + noise, 0, 255).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        mine = jpeg.encode(image)
        errors = [
            np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - image).mean()
            for data in (mine, file.getvalue())
        ]
        assert errors[0] <= errors[1] * 1.1 + 0.1
        assert len(mine) <= 1.1 * len(file.getvalue()) + 20
