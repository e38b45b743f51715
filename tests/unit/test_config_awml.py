"""AWML's Python deploy configs load, mean the same, and are never executed."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from shared.config import DeployConfig, load_config
from shared.config.awml import read_awml
from shared.config.convert import convert_awml
from shared.config.walk import key_text
from shared.errors import ConfigError

DATA = Path(__file__).parents[1] / "data"
REFERENCE = DATA / "awml_deploy_config.py"


def write(folder: Path, text: str, name: str = "deploy_config.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> DeployConfig:
    return load_config(write(folder, text), overrides)


def told(folder: Path, name: str = "deploy_config.py") -> str:
    """The notes on a file, one line each."""
    return "\n".join(map(str, read_awml(folder / name).notes))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_reference_config_means_what_the_yaml_says() -> None:
    assert load_config(REFERENCE) == load_config(DATA / "awml_deploy_config.yaml")


def test_converted_yaml_means_the_same(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "c.yaml"
    out.parent.mkdir()
    text, notes = convert_awml(REFERENCE, out)
    out.write_text(text, encoding="utf-8")
    assert load_config(out) == load_config(REFERENCE)
    assert notes
    for note in notes:
        assert f"line {note.line}, {key_text(note.keys)}: {note.text.split()[0]}" in text


def test_what_awml_ignores_or_means_otherwise_is_told() -> None:
    told = {key_text(note.keys) for note in read_awml(REFERENCE).notes if note.changed}
    assert told == {
        "checkpoint_path",
        "deploy_log_path",
        "export.work_dir",
        "export.onnx_path",
        "runtime_io.info_file",
        "evaluation.backends.onnx.model_dir",
        "evaluation.backends.tensorrt.engine_dir",
    }


def test_defaults_are_awmls(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        task_type = "detection3d"
        export = dict()
        components = dict(
            pts_voxel_encoder=dict(onnx_file="a.onnx", engine_file="a.engine",
                                   io=dict(inputs=[dict(name="x")], outputs=[dict(name="y")])))
        """,
    )
    assert config.model.type == "centerpoint"
    assert config.export.mode == "both"
    assert (config.export.opset_version, config.export.simplify) == (17, "none")
    assert (config.tensorrt.precision_policy, config.tensorrt.max_workspace_size) == ("auto", 1 << 30)
    assert (config.verification.enabled, config.verification.num_verify_samples) == (True, 3)
    assert config.verification.tolerance is None
    assert (config.evaluation.enabled, config.evaluation.num_samples) == (False, 10)
    assert [backend.enabled for _, backend in config.evaluation.backends] == [False, False, False]
    # AWML gives the axes that it does not name no dynamic size.
    assert config.components["pts_voxel_encoder"].io.dynamic_axes == {}


def test_the_older_calibration_form_loads(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        codebase_config = dict(type="mmpretrain", task="Classification", model_type="end2end")
        task_type = "classification"
        export = dict(mode="both", work_dir="w", checkpoint_path="m.pth", device="cuda:0", verify=False)
        runtime_io = dict(info_pkl="info/test.pkl", sample_idx=0)
        model_io = dict(
            input_name="input", input_shape=(5, 1860, 2880), input_dtype="float32", output_name="output",
            batch_size=None,
            dynamic_axes={"input": {0: "batch_size", 2: "height", 3: "width"}, "output": {0: "batch_size"}},
        )
        onnx_config = dict(type="onnx", opset_version=16, save_file="end2end.onnx", simplify=True)
        backend_config = dict(
            type="tensorrt",
            common_config=dict(max_workspace_size=1 << 30, precision_policy="fp16"),
            model_inputs=[dict(input_shapes=dict(input=dict(
                min_shape=[1, 5, 1080, 1920], opt_shape=[1, 5, 1860, 2880], max_shape=[1, 5, 2160, 3840])))],
        )
        evaluation = dict(enabled=True, num_samples=4, models=dict(onnx="a.onnx", tensorrt=None))
        """,
    )
    assert (config.model.type, config.task_type) == ("calibration", "classification")
    assert config.model.checkpoint == tmp_path / "m.pth"
    assert config.data.info_file == Path("info/test.pkl")
    assert config.export.simplify == "onnxsim"
    assert config.tensorrt.precision_policy == "fp16"
    assert not config.verification.enabled
    component = config.components["end2end"]
    assert (component.onnx_file, component.engine_file) == ("end2end.onnx", "end2end.engine")
    assert component.io.dynamic_axes == {
        "input": {0: "batch_size", 2: "height", 3: "width"},
        "output": {0: "batch_size"},
    }
    assert component.tensorrt_profile["input"].max_shape == (1, 5, 2160, 3840)
    assert config.evaluation.backends.onnx.enabled
    assert not config.evaluation.backends.tensorrt.enabled


def test_a_fixed_batch_size_fixes_every_axis(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        task_type = "detection2d"
        export = dict(mode="onnx")
        model_io = dict(input_name="images", input_shape=(3, 960, 960), batch_size=6, dynamic_axes={"images": {0: "b"}})
        onnx_config = dict(opset_version=16, save_file="yolox.onnx", decode_in_inference=False)
        """,
    )
    component = config.components["yolox"]
    assert component.io.dynamic_axes == {}
    assert component.tensorrt_profile["images"].min_shape == (6, 3, 960, 960)
    assert component.tensorrt_profile["images"].max_shape == (6, 3, 960, 960)
    assert config.model.options == {"batch_size": 6}
    assert "onnx_config.decode_in_inference: dropped, as AWML's exporter ignores it" in told(tmp_path)


def test_the_older_centerpoint_form_gives_each_input_to_its_component(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        task_type = "detection3d"
        export = dict(mode="both")
        model_io = dict(input_name="voxels", additional_inputs=[dict(name="coors", shape=(-1, 4), dtype="int32")])
        onnx_config = dict(opset_version=16, multi_file=True, components=dict(
            voxel_encoder=dict(name="pts_voxel_encoder", onnx_file="e.onnx", engine_file="e.engine"),
            backbone_head=dict(name="pts_backbone_neck_head", onnx_file="h.onnx", engine_file="h.engine")))
        backend_config = dict(common_config=dict(), model_inputs=[dict(input_shapes=dict(
            input_features=dict(min_shape=[1000, 32, 11], opt_shape=[20000, 32, 11], max_shape=[64000, 32, 11]),
            spatial_features=dict(min_shape=[1, 32, 760, 760], opt_shape=[1, 32, 760, 760],
                                  max_shape=[1, 32, 760, 760])))])
        """,
    )
    assert config.components["pts_voxel_encoder"].onnx_file == "e.onnx"
    assert list(config.components["pts_voxel_encoder"].tensorrt_profile) == ["input_features"]
    assert list(config.components["pts_backbone_neck_head"].tensorrt_profile) == ["spatial_features"]
    assert config.components["pts_voxel_encoder"].io.inputs == ()


def test_aliases_are_honored_where_awml_ignored_them(tmp_path: Path) -> None:
    text = """
        task_type = "detection2d"
        devices = dict(cpu="cpu", cuda="cuda:1")
        export = dict(mode="onnx")
        verification = dict(devices=dict(cuda="cuda:2"), scenarios=dict(onnx=[
            dict(ref_backend="pytorch", ref_device="cpu", test_backend="onnx", test_device="cuda")]))
        """
    config = load(tmp_path, text)
    assert config.device(config.verification.scenarios.onnx[0].test_device) == "cuda:1"
    assert "in AWML, their 'cuda' is always cuda:0" in told(tmp_path)
    assert "verification.devices: dropped, as AWML ignores it" in told(tmp_path)


def test_verification_that_compared_nothing_is_told(tmp_path: Path) -> None:
    start = 'task_type = "detection2d"\nexport = dict(mode="onnx")\n'
    without = write(tmp_path, start)
    assert load_config(without).verification.scenarios.onnx
    assert "AWML compares nothing" in told(tmp_path)
    other = write(tmp_path, start + "verification = dict(scenarios=dict(onnx=[]))\n", "b.py")
    assert not load_config(other).verification.enabled
    assert "AWML compares nothing" in told(tmp_path, "b.py")


def test_quantization_and_plugins_are_kept(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        task_type = "detection3d"
        export = dict(mode="none", onnx_path="onnx")
        tensorrt_config = dict(precision_policy="explicit_int8", plugin_libraries=["p.so"])
        quantization = dict(enabled=True, mode="qat", calibration=dict(num_batches=5, amax_method="entropy"),
                            fusion=dict(fuse_bn=False), sensitive_layers=["head"])
        """,
        "model.type=centerpoint",
    )
    assert config.export.onnx_path == tmp_path / "onnx"
    assert config.tensorrt.plugin_libraries == (tmp_path / "p.so",)
    assert (config.quantization.enabled, config.quantization.mode) == (True, "qat")
    assert config.quantization.calibration.num_batches == 5
    assert not config.quantization.fusion.fuse_bn


def test_base_files_merge_as_mmengine_does(tmp_path: Path) -> None:
    write(tmp_path, 'task_type = "detection2d"\nexport = dict(mode="onnx", work_dir="w")\n'
                    "onnx_config = dict(opset_version=16, simplify=True)\n", "base.py")  # fmt: skip
    config = load(
        tmp_path,
        """
        _base_ = ["base.py"]
        onnx_config = dict(opset_version=18)
        export = dict(_delete_=True, mode="none")
        """,
    )
    assert (config.export.opset_version, config.export.simplify) == (18, "onnxsim")
    assert config.export.mode == "none"
    assert "is its own _base_" in refusal(tmp_path, '_base_ = "deploy_config.py"\n')
    assert "missing.py: no such config file" in refusal(tmp_path, '_base_ = "missing.py"\n')


def test_plain_python_values_are_understood(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        '''Docstring.'''
        task_type: str = "detection2d"
        _dir = "w/"
        _sizes = [1, *(3, 4 * 10 // 2), -(-20)]
        _common = {**dict(opset_version=16), "opset_version": 15 + 3}
        export = dict(dict(mode="none"), onnx_path=f"{_dir.rstrip('/')}/x{1}")
        onnx_config = _common | dict(simplify=not True)
        tensorrt_config = dict(max_workspace_size=(1 << 20) + 2**10)
        verification = dict(tolerance=1e-1 / 10)
        model_io = dict(input_shape=tuple(_sizes[1:][0:] if False else _sizes), batch_size=1)
        """.replace("_sizes[1:][0:] if False else _sizes", "_sizes"),
    )
    assert config.export.onnx_path == tmp_path / "w/x1"
    assert (config.export.opset_version, config.export.simplify) == (18, "none")
    assert config.tensorrt.max_workspace_size == 2**20 + 2**10
    assert config.verification.tolerance == 0.01
    assert config.components["yolox"].tensorrt_profile["images"].min_shape == (1, 1, 3, 20, 20)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import sys", "'import sys': only assignments"),
        ("from os import system", "'from os import system': only assignments"),
        ("x = __import__('os').system('touch owned')", "may call only dict, list, tuple"),
        ("import os; x = os.system('touch owned')", "may call only dict, list, tuple"),
        ("import os; x = os.path.join", "Attribute is not a plain value"),
        ("import os; x = os.path.join()", "missing 1 required positional argument"),
        ("import os; x = os.path.join('a', 1)", "takes strings"),
        ("x = os.path.join('a', 'b')", "may call only dict, list, tuple"),
        ("x = str(export)", "may call only dict, list, tuple"),
        ("x = 'a'.lower('b')", "takes no arguments"),
        ("x = 'a'.format('b')", "may call only dict, list, tuple"),
        ("x = open('/etc/passwd').read()", "may call only dict, list, tuple"),
        ("x = (lambda: 1)()", "may call only dict, list, tuple"),
        ("x = ().__class__.__base__.__subclasses__()", "may call only dict, list, tuple"),
        ("x = {}.__class__.__mro__[1]", "Attribute is not a plain value"),
        ("x = 'a' * 10**9", "can't compute with str"),
        ("x = [0] * 10**9", "can't compute with list"),
        ("x = [i for i in (1, 2)]", "ListComp is not a plain value"),
        ("x = ''.__class__", "Attribute is not a plain value"),
        ("x = f'{1:>10}'", "an f-string may hold"),
        ("x = f'{1!r}'", "an f-string may hold"),
        ("x = b'a'", "bytes is not understood here"),
        ("x = undefined", "no such name above"),
        ("x = exprt", "no such name above; did you mean export?"),
        ("x = export['mod']", "there is no 'mod'; there are 'mode'"),
        ("x = 1 << 10**9", "is too large a number"),
        ("x = 9**99", "is too large a number"),
        ("x = 1 // 0", "division"),
        ("x = 'a' * 10", "can't compute with str"),
        ("x = {'a': 1, 'a': 2}", "duplicate key (first on line 2)"),
        ("x = {(1, 2): 3}", "a key should be a string or a whole number"),
        ("a, b = 1, 2", "only plain names are assigned"),
        ("export['mode'] = 'none'", "only plain names are assigned"),
        ("x += 1", "no such name above"),
        ("export += 1", "only a list grows by +="),
        ("if True:\n    x = 1", "only assignments"),
        ("def f(): pass", "only assignments"),
    ],
)
def test_anything_more_than_values_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(tmp_path, f'export = dict(mode="onnx")\n{line}\n')
    assert message.startswith("deploy_config.py:2: ")
    assert reason in message
    assert "\n" not in message
    assert not (tmp_path / "owned").exists()


def test_python_that_does_not_parse_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path, "export = dict(\n").startswith("deploy_config.py:1: is not valid Python")
    assert "is nested too deeply" in refusal(tmp_path, f"x = {'-' * 5000}1\n") or "not valid Python" in refusal(
        tmp_path, f"x = {'-' * 5000}1\n"
    )


def test_unknown_keys_are_told_at_any_depth_with_their_line(tmp_path: Path) -> None:
    lines = refusal(
        tmp_path,
        """
        exprot = dict()
        export = dict(mode="onxn", opset=17)
        onnx_config = dict(opset_version=23, simplfy=True)
        components = dict(a=dict(
            onnx_file="a.onnx", engine_file="a.engine", io=dict(
                inputs=[dict(nam="x", name="x")], outputs=[dict(name="y")]),
            tensorrt_profile=dict(x=dict(min_shpe=[1]))))
        verification = dict(scenarios=dict(onyx=[]))
        """,
    ).splitlines()
    by_key = {line.split(": ", 2)[1]: line for line in lines}
    assert "deploy_config.py:2: " in by_key["exprot"]
    assert "did you mean 'export'?" in by_key["exprot"]
    assert "deploy_config.py:3: " in by_key["export.mode"]
    assert "did you mean onnx?" in by_key["export.mode"]
    assert "unknown key" in by_key["export.opset"]
    assert by_key["onnx_config.opset_version"].endswith("is 23; should be at most 22")
    assert "did you mean 'simplify'?" in by_key["onnx_config.simplfy"]
    assert "deploy_config.py:7: " in by_key["components.a.io.inputs[0].nam"]
    assert "did you mean 'min_shape'?" in by_key["components.a.tensorrt_profile.x.min_shpe"]
    assert "should be one of" in by_key["verification.scenarios.onyx"]


def test_mistakes_that_show_after_the_conversion_keep_their_line(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        """
        task_type = "detection2d"
        export = dict(mode="onnx")
        verification = dict(
            scenarios=dict(
                onnx=[
                    dict(ref_backend="pytorch", ref_device="cpu", test_backend="onnx", test_device="gpu")]))
        """,
    )
    assert message.startswith(
        "deploy_config.py:7: verification.scenarios.onnx[0].test_device: is 'gpu'; no such device"
    )


def test_a_file_that_names_no_model_wants_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'export = dict(mode="none")\n')
    assert message.startswith("deploy_config.py: does not say which model it is for. say it with --set model.type=NAME")
    assert load(tmp_path, 'export = dict(mode="none")\n', "model.type=mine").model.type == "mine"


def test_a_converted_file_that_names_no_model_says_so(tmp_path: Path) -> None:
    text, _ = convert_awml(write(tmp_path, 'export = dict(mode="none")\n'), tmp_path / "c.yaml")
    assert "type: unknown" in text
    assert "# - the file does not say which model it is for; say it with --set model.type=NAME" in text
