"""What a config means: defaults, paths, environment variables, overrides, units, devices, the manifest's copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.config import DeployConfig, from_resolved, load_config, part, resolved
from shared.errors import ConfigError, ManifestError

ROOT = Path(__file__).parents[2]
MODEL = "model:\n  type: centerpoint\n"


def load(folder: Path, text: str, *overrides: str) -> DeployConfig:
    path = folder / "c.yaml"
    path.write_text(MODEL + text, encoding="utf-8")
    return load_config(path, overrides)


def test_defaults_are_those_of_awml(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert config.export.mode == "both"
    assert (config.export.opset_version, config.export.do_constant_folding, config.export.simplify) == (
        17,
        True,
        "none",
    )
    assert (config.tensorrt.precision_policy, config.tensorrt.max_workspace_size) == ("auto", 1 << 30)
    assert (config.verification.enabled, config.verification.num_verify_samples) == (True, 3)
    assert config.verification.tolerance is None
    assert (config.evaluation.enabled, config.evaluation.num_samples, config.evaluation.verbose) == (False, 10, False)
    assert config.devices == {"cpu": "cpu", "cuda": "cuda:0"}
    assert config.data.sample_idx == 0


def test_every_mode_but_none_compares_something_by_default(tmp_path: Path) -> None:
    scenarios = load(tmp_path, "").verification.scenarios
    assert [(s.ref_backend, s.test_backend) for s in scenarios.onnx] == [("pytorch", "onnx")]
    assert scenarios.both
    assert scenarios.trt
    assert [s.optional for s in scenarios.both if s.test_backend == "tensorrt"] == [True]


def test_tensorrt_runs_on_cuda_unless_told_otherwise(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "evaluation: {backends: {tensorrt: {enabled: true}}}\n"
        "verification: {scenarios: {trt: [{ref_backend: onnx, test_backend: tensorrt}]}}\n",
    )
    assert config.evaluation.backends.tensorrt.device == "cuda"
    scenario = config.verification.scenarios.trt[0]
    assert (scenario.ref_device, scenario.test_device) == ("cpu", "cuda")


def test_paths_start_from_the_config_and_overrides_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    config = load(
        tmp_path,
        "  config: train/a.py\n  checkpoint: ../a.pth\ndata: {root: d, info_file: info/a.pkl}\n"
        "tensorrt: {plugin_libraries: [p.so, /q.so]}\n",
        "model.checkpoint=b.pth",
    )
    assert config.model.config == tmp_path / "train/a.py"
    assert config.model.checkpoint == here / "b.pth"
    assert config.data.root == tmp_path / "d"
    assert config.data.info_file == Path("info/a.pkl")
    assert config.tensorrt.plugin_libraries == (tmp_path / "p.so", Path("/q.so"))
    assert load(tmp_path, "", "data.info_file=x.pkl").data.info_file == here / "x.pkl"


def test_sources_of_a_mixture_have_paths_of_their_own(tmp_path: Path) -> None:
    config = load(
        tmp_path, "data: {format: concat, sources: [{format: kitti, root: k}, {root: t, info_file: i.pkl}]}\n"
    )
    assert [source.root for source in config.data.sources] == [tmp_path / "k", tmp_path / "t"]
    assert config.data.sources[1].info_file == Path("i.pkl")


def test_environment_variables_are_expanded_in_paths_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DATA", "/data/some")
    monkeypatch.setenv("HOME", "/home/someone")
    text = "  checkpoint: ~/a.pth\ndata: {root: '${SOME_DATA}/t4', label_map: {'${SOME_DATA}': car}}\n"
    config = load(tmp_path, text)
    assert config.data.root == Path("/data/some/t4")
    assert config.model.checkpoint == Path("/home/someone/a.pth")
    assert config.data.label_map == {"${SOME_DATA}": "car"}
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(ConfigError, match=r"data\.root: is .* SOME_DATA is not set; set it"):
        load(tmp_path, text)
    with pytest.raises(ConfigError, match=r"write an environment variable as \$\{NAME\}"):
        load(tmp_path, "data: {root: $SOME_DATA/x}\n")


def test_yaml_is_read_as_yaml_1_2(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "verification: {tolerance: 1e-3, output_tolerances: {on: 1E-2, no: .5}}\n"
        "data: {classes: [yes, 2026-11-20, 1_a]}\n",
    )
    assert config.verification.tolerance == 0.001
    assert config.verification.output_tolerances == {"on": 0.01, "no": 0.5}
    assert config.data.classes == ("yes", "2026-11-20", "1_a")


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "evaluation:\n  backends:\n"
        "    pytorch: &b {enabled: false, device: cuda:1}\n    onnx: {<<: *b, enabled: true}\n",
    )
    assert config.evaluation.backends.onnx.device == "cuda:1"
    assert config.evaluation.backends.onnx.enabled


def test_overrides_replace_add_and_the_last_one_wins(tmp_path: Path) -> None:
    text = "verification:\n  scenarios:\n    onnx:\n      - {ref_backend: pytorch, test_backend: onnx}\n"
    config = load(
        tmp_path,
        text,
        "export.mode=trt",
        "export.mode=onnx",
        "evaluation.backends.onnx.device=cuda:2",
        "verification.scenarios.onnx[0].tolerance=1e-4",
        "model.options={rot_y_axis_reference: true}",
        "model.options.nms_type=circle",
        "data.classes=[car, truck]",
        "components.head.precision_policy=fp32",
        "model.checkpoint=null",
    )
    assert config.export.mode == "onnx"
    assert config.evaluation.backends.onnx.device == "cuda:2"
    assert config.verification.scenarios.onnx[0].tolerance == 1e-4
    assert config.verification.scenarios.onnx[0].ref_backend == "pytorch"
    assert config.model.options == {"rot_y_axis_reference": True, "nms_type": "circle"}
    assert config.data.classes == ("car", "truck")
    assert config.components["head"].precision_policy == "fp32"
    assert config.components["head"].onnx_file == "head.onnx"
    assert config.components["head"].engine_file == "head.engine"
    assert config.model.checkpoint is None


def test_an_override_can_repair_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "export: {mode: onxn}\n", "export.mode=onnx").export.mode == "onnx"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2147483648", 2 << 30), ("2 GiB", 2 << 30), ("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("2 GB", 2 * 10**9)],
)
def test_sizes_may_have_units(tmp_path: Path, text: str, expected: int) -> None:
    assert load(tmp_path, f"tensorrt: {{max_workspace_size: {text}}}\n").tensorrt.max_workspace_size == expected


def test_device_aliases_stand_for_devices(tmp_path: Path) -> None:
    config = load(tmp_path, "devices: {cuda: 'cuda:1', big: cuda}\n")
    assert [config.device(name) for name in ("cpu", "cuda", "big", "cuda:3")] == ["cpu", "cuda:1", "cuda:0", "cuda:3"]
    with pytest.raises(KeyError):
        config.device("tpu")


def test_a_config_can_not_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    with pytest.raises(ValueError, match="frozen"):
        config.export.mode = "onnx"


def test_the_manifest_gives_the_config_back(tmp_path: Path) -> None:
    config = load(
        tmp_path, "data: {root: d}\ncomponents: {a: {io: {dynamic_axes: {x: {0: n, 2: h}}}, onnx_file: b.onnx}}\n"
    )
    stored = json.loads(json.dumps(resolved(config), allow_nan=False))
    assert from_resolved(stored, "manifest.json") == config
    assert config.components["a"].io.dynamic_axes == {"x": {0: "n", 2: "h"}}


def test_a_manifest_of_another_version_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"manifest.json: its config does not fit this version: .*later") as caught:
        from_resolved({"model": {"type": "centerpoint"}, "later": 1}, "manifest.json")
    assert caught.value.exit_code == 3


def test_fingerprints_do_not_depend_on_where_files_lie(tmp_path: Path) -> None:
    parts = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        config = load(
            folder,
            "  checkpoint: x.pth\n  config: x.py\ndata: {format: concat, sources: [{root: d, max_sweeps: 3}]}\n"
            "tensorrt: {plugin_libraries: [p.so]}\n",
        )
        parts.append(part(config, "model", "data", "tensorrt"))
    assert parts[0] == parts[1]
    assert str(tmp_path) not in json.dumps(parts)
    assert set(parts[0]) == {"model", "data", "tensorrt"}
    assert parts[0]["data"]["sources"][0]["max_sweeps"] == 3
    changed = part(load(tmp_path, "", "model.options={rot_y_axis_reference: true}"), "model")
    assert changed["model"] != parts[0]["model"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configs_here_load_and_say_how_they_are_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAL_DATA", "/data/real")
    config = load_config(path)
    head = path.read_text(encoding="utf-8").partition("\n\n")[0]
    for word in ("# Before:", "# Run:", "# Override:", "make "):
        assert word in head
    if config.model.config is None:
        assert config.export.mode == "none"  # ONNX files made elsewhere: nothing is trained or exported
    else:
        assert config.model.config.parent == ROOT / "configs" / "train"


def test_open_dataset_takes_the_data_section(tmp_path: Path) -> None:
    """The section has every field that `shared.data` reads."""
    from shared.data.types import DataSettings

    section = load(tmp_path, "").data
    for name in DataSettings.__dataclass_fields__:
        default, ours = getattr(DataSettings(format="info"), name), getattr(section, name)
        if name == "miscalibration":
            default, ours = vars(default), vars(ours)
        assert ours == (dict(default) if isinstance(ours, dict) else default), name
