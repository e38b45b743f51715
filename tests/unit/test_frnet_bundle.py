"""FRNet's bundle for Autoware: files and parameters as its node reads them; forms that it can't feed are refused."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.autoware import BundleOptions
from exporter.autoware.refusals import NodeRefuses
from exporter.models.frnet.autoware import bundle
from shared.errors import UsageError
from shared.spec import ModelSpec
from tests.support import tiny_frnet as tiny

CONFIG = {"tensorrt": {"precision_policy": "fp16"}}


def made(spec: ModelSpec, **options: Any) -> Any:
    return bundle(spec, CONFIG, BundleOptions(**options))


def test_files_are_named_and_filled_as_the_node_reads_them() -> None:
    box = (-1.5, -1.0, 0.0, 5.5, 1.0, 3.0)
    made_bundle = made(tiny.spec("scatter"), model_name="qt128", ego_box=box)
    assert list(made_bundle.onnx) == ["frnet_qt128.onnx"]
    node, package = (
        made_bundle.parameters["frnet.param.yaml"],
        made_bundle.parameters["ml_package_frnet_qt128.param.yaml"],
    )
    assert node["onnx_path"] == "$(var model_path)/frnet_qt128.onnx"
    assert node["trt_precision"] == "fp16"
    assert node["filter"]["classes"] == ["road"]
    assert [node["filter"]["ego_crop_box"][f"max_{axis}"] for axis in "xyz"] == [5.5, 1.0, 3.0]
    assert package["class_names"] == [*tiny.CLASSES, "unknown"]
    colors = package["palette"]
    assert len({tuple(colors[row : row + 3]) for row in range(0, len(colors), 3)}) == len(package["class_names"])
    assert all(0 <= value <= 255 for value in colors)
    assert {name: package[name] for name in package if name not in ("class_names", "palette")} == {
        "fov_up_deg": 13.0, "fov_down_deg": -26.0, "frustum_width": tiny.WIDTH, "frustum_height": tiny.HEIGHT,
        "interpolation_width": tiny.COLUMNS, "interpolation_height": tiny.HEIGHT,
        "num_points": [2, 60000, 120000], "num_unique_coors": [2, 60000, 120000],
    }  # fmt: skip


def test_a_strongly_typed_bundle_names_the_file_in_fp16() -> None:
    made_bundle = made(tiny.spec("scatter"), precision="strongly-typed")
    assert list(made_bundle.onnx) == ["frnet_ot128.onnx"]
    assert made_bundle.typed_onnx == {"frnet_ot128.fp16.onnx": tiny.spec("scatter").components[0]}
    node = made_bundle.parameters["frnet.param.yaml"]
    assert node["onnx_path"] == "$(var model_path)/frnet_ot128.fp16.onnx"
    assert node["trt_precision"] == "strongly-typed"


def test_thresholds_are_refused() -> None:
    with pytest.raises(UsageError, match="--score-threshold: autoware_lidar_frnet has no value for it"):
        made(tiny.spec("scatter"), score_thresholds={"": (0.5,)})


def test_what_the_node_cant_feed_is_refused() -> None:
    with pytest.raises(NodeRefuses, match=r"it gives points, coors, voxel_coors, inverse_map.*form=scatter"):
        made(tiny.spec("padded"))
    grassland = tiny.spec("scatter")
    grassland = grassland.model_copy(update={"classes": ["car", "grass"]})
    with pytest.raises(NodeRefuses, match="none of drivable_surface, driveable_surface, road"):
        made(grassland)
