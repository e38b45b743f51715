"""Exported files: every opset, exporter and simplifier; and files that are wrong don't pass."""

from __future__ import annotations

import datetime
from dataclasses import replace

import numpy as np
import pytest

from shared.errors import ConfigError, ExportError
from shared.spec import AxisSizes, ModelSpec, TensorSpec
from tests.support.exporting import SMALL, built, points

pytestmark = pytest.mark.exporter


@pytest.fixture(scope="module")
def centerpoint_components():
    from exporter.models.centerpoint import adapter as centerpoint

    model, _, options = built(SMALL, {"rot_y_axis_reference": True})
    return centerpoint.components(model, points(4), options)


def scaling(factor=2.0):
    """A component of one convolution: (batch_size, 2, height, 8) to (batch_size, 3, height, 8)."""
    import torch

    from exporter.component import Component

    torch.manual_seed(0)
    module = torch.nn.Conv2d(2, 3, 3, padding=1).eval()
    with torch.no_grad():
        module.weight.mul_(factor)
    data = torch.randn(4, 2, 16, 8)
    return Component(
        name="scaling",
        module=module,
        inputs=(TensorSpec(name="x", dtype="float32", shape=["batch_size", 2, "height", 8]),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=["batch_size", 3, "height", 8]),),
        inputs_of=lambda sizes: (data[: sizes["batch_size"], :, : sizes["height"]].contiguous(),),
        trace_sizes={"batch_size": 2, "height": 4},
        check_sizes=(
            {"batch_size": 1, "height": 16},
            {"batch_size": 3, "height": 5},
            {"batch_size": 4, "height": 8},
        ),
        deployed_sizes={"batch_size": 1, "height": 16},
    )


def write(component, path, exporter="torchscript", opset=17):
    from exporter.artifacts.onnx_export import export_onnx

    export_onnx(component, path, exporter=exporter, opset_version=opset)
    return path


def check(path, component, opset=17):
    from exporter.artifacts.checks import check_onnx

    return check_onnx(path, component, opset)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("opset", [17, 20])  # every opset: test_onnx_opsets
def test_opsets_of_both_exporters(centerpoint_components, exporter, opset, tmp_path):
    for component in centerpoint_components:
        path = write(component, tmp_path / f"{component.name}.onnx", exporter, opset)
        agreements = check(path, component, opset)
        assert len(agreements) == 3
        assert max(agreement.largest_relative for agreement in agreements) < 1e-5


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("simplifier", ["onnxsim", "onnxslim", "polygraphy"])
def test_simplified_files_are_not_larger_and_compute_the_same(centerpoint_components, exporter, simplifier, tmp_path):
    import onnx

    from exporter.artifacts.simplify import simplify

    encoder = centerpoint_components[0]
    path = write(encoder, tmp_path / "encoder.onnx", exporter, 18)
    before = len(onnx.load(path).graph.node)
    simplify(path, simplifier, "scaling")
    assert len(onnx.load(path).graph.node) <= before
    check(path, encoder, 18)


@pytest.mark.parametrize("simplifier", ["onnxsim", "onnxslim"])
def test_what_is_done_and_undone_goes(simplifier, tmp_path):
    import onnx
    from onnx import helper

    from exporter.artifacts.simplify import simplify

    path = write(scaling(), tmp_path / "x.onnx")
    model = onnx.load(path)
    before = len(model.graph.node)
    for source, target in (("x", "turned"), ("turned", "back")):
        model.graph.node.insert(
            0 if source == "x" else 1, helper.make_node("Transpose", [source], [target], perm=[0, 1, 3, 2])
        )
    for node in model.graph.node[2:]:
        node.input[:] = ["back" if name == "x" else name for name in node.input]
    onnx.save(model, path)
    simplify(path, simplifier, "scaling")
    assert len(onnx.load(path).graph.node) == before
    check(path, scaling())


@pytest.mark.parametrize("simplifier", ["onnxsim", "onnxslim", "polygraphy"])
def test_what_is_computed_of_constants_goes(simplifier, tmp_path):
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from exporter.artifacts.simplify import simplify

    path = write(scaling(), tmp_path / "x.onnx")
    model = onnx.load(path)
    before = len(model.graph.node)
    graph = model.graph
    (result,) = graph.node[-1].output
    graph.node[-1].output[0] = "scaled"
    graph.initializer.append(numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    graph.node.append(helper.make_node("Add", ["half", "half"], ["one"]))
    graph.node.append(helper.make_node("Mul", ["one", "half"], ["again"]))
    graph.node.append(helper.make_node("Add", ["again", "half"], ["sum"]))
    graph.node.append(helper.make_node("Mul", ["scaled", "sum"], [result]))
    onnx.save(model, path)
    simplify(path, simplifier, "scaling")
    assert len(onnx.load(path).graph.node) <= before + 1
    check(path, scaling())


def test_without_simplifier_the_file_stays_as_it_is(tmp_path):
    from exporter.artifacts.simplify import simplify

    path = write(scaling(), tmp_path / "x.onnx")
    before = path.read_bytes()
    simplify(path, "none", "scaling")
    assert path.read_bytes() == before


def test_a_simplifier_that_breaks_the_graph_is_found_out(tmp_path, monkeypatch):
    """Whatever a simplifier returns is compared with PyTorch: here it returns another network."""
    import onnx
    import onnxslim

    from exporter.artifacts.simplify import simplify

    path = write(scaling(), tmp_path / "x.onnx")
    other = onnx.load(write(scaling(factor=2.002), tmp_path / "other.onnx"))
    monkeypatch.setattr(onnxslim, "slim", lambda model: other)
    simplify(path, "onnxslim", "scaling")
    with pytest.raises(
        ExportError, match=r"scaling at batch_size 1, height 16: ONNX Runtime and PyTorch differ in 'y'"
    ):
        check(path, scaling())


def test_a_simplifier_that_fails_is_told(tmp_path, monkeypatch):
    import onnxsim

    from exporter.artifacts.simplify import simplify

    path = write(scaling(), tmp_path / "x.onnx")
    monkeypatch.setattr(onnxsim, "simplify", lambda model: (model, False))
    with pytest.raises(ExportError, match=r"onnxsim's own check.*export.simplify=none"):
        simplify(path, "onnxsim", "scaling")


# -- files that must not pass ------------------------------------------------------------------------------------------


def test_truncated_file(tmp_path):
    path = write(scaling(), tmp_path / "x.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match="scaling: not a valid ONNX file"):
        check(path, scaling())


@pytest.mark.parametrize(
    ("field", "name", "message"),
    [
        ("outputs", "z", r"outputs \['y'\] instead of \['z'\]"),
        ("inputs", "input", r"inputs \['x'\] instead of \['input'\]"),
    ],
)
def test_other_names(tmp_path, field, name, message):
    component = scaling()
    path = write(component, tmp_path / "x.onnx")
    expected = replace(component, **{field: (getattr(component, field)[0].model_copy(update={"name": name}),)})
    with pytest.raises(ExportError, match=message):
        check(path, expected)


def test_an_axis_that_is_fixed_by_mistake(tmp_path):
    component = scaling()
    path = write(component.with_dynamic_axes({"x": {0: "batch_size"}, "y": {0: "batch_size"}}), tmp_path / "x.onnx")
    with pytest.raises(ExportError, match=r"input 'x' has the shape \['batch_size', 2, 16, 8\]"):
        check(path, component)


def test_another_opset(tmp_path):
    path = write(scaling(), tmp_path / "x.onnx", opset=16)
    with pytest.raises(ExportError, match="has opset 16 instead of 17"):
        check(path, scaling())


def test_a_network_that_gives_nan(tmp_path):
    component = scaling(factor=float("nan"))
    path = write(component, tmp_path / "x.onnx")
    with pytest.raises(ExportError, match="the model itself gives NaN"):
        check(path, component)


def test_a_module_that_can_not_be_exported(tmp_path):
    import torch

    class Unexportable(torch.nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                raise ValueError("no such path")
            return x.numpy()

    component = replace(scaling(), module=Unexportable())
    for exporter in ("torchscript", "dynamo"):
        with pytest.raises(ExportError, match=f"scaling: PyTorch's {exporter} exporter failed"):
            write(component, tmp_path / "x.onnx", exporter)
    from exporter.artifacts.programs import export_program

    with pytest.raises(ExportError, match=r"scaling: torch.export failed"):
        export_program(component, tmp_path / "x.pt2")


def test_a_program_whose_axis_the_module_fixes(tmp_path):
    import torch

    from exporter.artifacts.programs import export_program

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x[:, :, :, :3].reshape(2, 3, 4, 2)[:, :, :, :1] if x.shape[0] == 2 else x

    with pytest.raises(ExportError, match=r"torch.export failed"):
        export_program(replace(scaling(), module=Fixed()), tmp_path / "x.pt2")


# -- axes and header ---------------------------------------------------------------------------------------------------


def test_all_axes_fixed(tmp_path):
    component = scaling().with_dynamic_axes({})
    assert component.inputs[0].shape == [1, 2, 16, 8]
    assert component.check_sizes == ({"batch_size": 1, "height": 16},)
    check(write(component, tmp_path / "x.onnx"), component)


def test_renamed_axes(tmp_path):
    component = scaling().with_dynamic_axes({"x": {0: "B", 2: "H"}, "y": {0: "B", 2: "H"}})
    assert component.inputs[0].shape == ["B", 2, "H", 8]
    for exporter, opset in (("torchscript", 17), ("dynamo", 18)):
        check(write(component, tmp_path / "x.onnx", exporter, opset), component, opset)


def test_the_spec_has_the_sizes_of_the_inputs_dynamic_axes_whatever_their_names():
    varying = AxisSizes(min=1, opt=4, max=16, counter="rows")
    component = replace(scaling(), varying_axes={"height": varying})
    assert component.spec("x.onnx", None).axes == {"batch_size": AxisSizes.fixed(1), "height": varying}
    renamed = component.with_dynamic_axes({"x": {2: "H"}, "y": {2: "H"}})
    assert renamed.spec("x.onnx", None).axes == {"H": varying}


def test_the_pillars_of_a_frame_vary_up_to_what_the_model_takes(centerpoint_components):
    encoder, head = (component.spec("x.onnx", None).axes for component in centerpoint_components)
    pillars = encoder["num_voxels"]
    assert (pillars.min, pillars.opt, pillars.counter) == (1, pillars.max // 4, "voxels")
    assert all(
        sizes.min == sizes.max for axes in (encoder, head) for name, sizes in axes.items() if name != "num_voxels"
    )
    assert set(head) == {"batch_size", "height", "width"}


def test_axes_that_can_not_be_dynamic():
    with pytest.raises(ConfigError, match=r"components.scaling.io.dynamic_axes: axis 1 of 'x' can't be dynamic"):
        scaling().with_dynamic_axes({"x": {1: "channels"}})
    with pytest.raises(ConfigError, match=r"axis 0 of 'nothing' can't be dynamic"):
        scaling().with_dynamic_axes({"nothing": {0: "batch"}})


# What a reader of autoware-ml's files finds in one (its pull request 91), beside parameters as JSON.
PROVENANCE = {"release", "model_name", "task", "module", "config_name", "export_date", "exported_with"}


def test_header(tmp_path):
    import onnx

    from exporter.artifacts.stamp import stamp
    from shared import __version__

    path = write(scaling(), tmp_path / "x.onnx")
    spec = ModelSpec(
        model="centerpoint",
        task="detection3d",
        classes=["car", "bus"],
        components=[scaling().spec("onnx/x.onnx", None)],
        parameters={"voxel_size": [0.1, 0.2, 8.0]},
    )
    exported_with = onnx.load(path).producer_name
    stamp(path, spec, "scaling", {"checkpoint_sha256": "abc", "config_name": "small.py"})
    check(path, scaling())
    model = onnx.load(path)
    values = {entry.key: entry.value for entry in model.metadata_props}
    assert (model.producer_name, model.producer_version, model.domain) == ("awml-deploy", __version__, "ai.onnx")
    # There, 0 is what no release has, and v0.0.1 is 1.
    assert model.model_version == 0 and model.doc_string == "centerpoint (scaling) unversioned"
    assert values.keys() >= PROVENANCE and values["release"] == "unversioned"
    assert values["exported_with"].split()[0] == exported_with == "pytorch"
    assert datetime.date.fromisoformat(values["export_date"]).year > 2025
    assert (values["class_names"], values["voxel_size"]) == ('["car","bus"]', "[0.1,0.2,8.0]")
    assert values["checkpoint_sha256"] == "abc" and values["task"] == "detection3d"


def test_a_parameter_does_not_take_the_place_of_the_origin(tmp_path):
    import onnx

    from exporter.artifacts.stamp import stamp

    path = write(scaling(), tmp_path / "x.onnx")
    component = scaling().spec("onnx/x.onnx", None)
    spec = ModelSpec(model="m", task="t", classes=["a"], components=[component], parameters={"module": 1, "task": 2})
    stamp(path, spec, "scaling", {})
    values = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (values["module"], values["task"]) == ("scaling", "t")


def test_agreement_reports_what_was_measured():
    from exporter.artifacts.checks import compare

    component = scaling()

    def off_by_a_little(inputs):
        return [component.module(*inputs).detach().numpy() + np.float32(1e-5)]

    agreements = compare(component, off_by_a_little, tolerance=1e-3, runner_name="test")
    assert [agreement.sizes for agreement in agreements] == list(component.check_sizes)
    assert all(0.5e-5 < agreement.largest_difference < 2e-5 for agreement in agreements)

    def not_a_number(inputs):
        return [component.module(*inputs).detach().numpy() * np.float32(np.nan)]

    with pytest.raises(ExportError, match="differ in 'y' by nan"):
        compare(component, not_a_number, tolerance=1e-3, runner_name="test")
