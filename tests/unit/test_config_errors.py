"""A wrong config gives one line for each problem: file, line, key, value, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import load_config
from shared.errors import ConfigError, InputError

# Eight times eight times eight ... of the same list.
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MODEL = "model:\n  type: centerpoint\n"


def refusals(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error that a config gives, without the file's folder."""
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("export: {mdoe: onnx}\n", "c.yaml:3: export.mdoe: unknown key; did you mean 'mode'?"),
        ("expotr: {mode: onnx}\n", "c.yaml:3: expotr: unknown key; did you mean 'export'?"),
        ("opset_version: 17\n", "c.yaml:3: opset_version: unknown key; did you mean export.opset_version?"),
        ("checkpoint_path: a.pth\n", "c.yaml:3: checkpoint_path: unknown key; did you mean model.checkpoint?"),
        ("devices: {gpu: gpu0}\n", "c.yaml:3: devices.gpu: is 'gpu0'; should be cpu, cuda or cuda:N"),
        (
            "export:\n  mode: onxn\n",
            "c.yaml:4: export.mode: is 'onxn'; should be one of 'onnx', 'trt', 'both' or 'none'; did you mean onnx?",
        ),
        (
            "task_type: detection\n",
            "c.yaml:3: task_type: is 'detection'; should be one of 'classification', ",
        ),
        ("export: {opset_version: '17'}\n", "c.yaml:3: export.opset_version: is '17'; should be a whole number"),
        ("export: {opset_version: 17.0}\n", "c.yaml:3: export.opset_version: is 17.0; should be a whole number"),
        ("export: {opset_version: 15}\n", "c.yaml:3: export.opset_version: is 15; should be at least 16"),
        ("export: {opset_version: 23}\n", "c.yaml:3: export.opset_version: is 23; should be at most 22"),
        ("export: {do_constant_folding: 1}\n", "c.yaml:3: export.do_constant_folding: is 1; should be true or false"),
        ("export: onnx\n", "c.yaml:3: export: is 'onnx'; should be a mapping (key: value)"),
        ("export:\n", "c.yaml:3: export: is null; should be a mapping (key: value)"),
        ("data: {classes: car}\n", "c.yaml:3: data.classes: is 'car'; should be a list"),
        ("data: {root: 5}\n", "c.yaml:3: data.root: is 5; should be a path"),
        (
            "data: {format: concat}\n",
            "c.yaml:3: data: has format concat; formats concat and crops need sources, and no other has them",
        ),
        ("verification: {tolerance: 0}\n", "c.yaml:3: verification.tolerance: is 0; should be more than 0"),
        ("verification: {tolerance: .nan}\n", "c.yaml:3: verification.tolerance: is NaN; should be a finite number"),
        ("verification: {num_verify_samples: 0}\n", "c.yaml:3: verification.num_verify_samples: is 0; should be at"),
        ("evaluation: {num_samples: 0}\n", "c.yaml:3: evaluation.num_samples: is 0; should be at least 1, or -1 for"),
        ("evaluation: {num_samples: true}\n", "c.yaml:3: evaluation.num_samples: is true; should be a whole number"),
        (
            "evaluation: {backends: {onnx: {device: cdua}}}\n",
            "c.yaml:3: evaluation.backends.onnx.device: is 'cdua'; no such device; did you mean cuda? use cpu, cuda",
        ),
        (
            "evaluation: {backends: {tensorrt: {device: cpu}}}\n",
            "c.yaml:3: evaluation.backends.tensorrt.device: is 'cpu'; TensorRT runs on CUDA devices only",
        ),
        (
            "verification: {scenarios: {both: []}}\n",
            "c.yaml:3: verification.scenarios.both: is []; verification.enabled with nothing to compare",
        ),
        (
            "verification: {scenarios: {none: [{ref_backend: onnx, test_backend: onnx}]}}\n",
            "c.yaml:3: verification.scenarios.none[0]: compares onnx with itself",
        ),
        (
            "verification:\n  scenarios:\n    none:\n      - ref_backend: pytorch\n",
            "c.yaml:6: verification.scenarios.none[0].test_backend: is missing and has no default",
        ),
        (
            "export: {onnx_path: onnx}\n",
            "c.yaml:3: export.onnx_path: is 'onnx'; export.mode both makes the ONNX files itself",
        ),
        ("tensorrt: {max_workspace_size: 2 GiBs}\n", "c.yaml:3: tensorrt.max_workspace_size: is '2 GiBs'; should be a"),
        ("tensorrt: {max_workspace_size: 0}\n", "c.yaml:3: tensorrt.max_workspace_size: is 0; should be more than 0"),
        ("tensorrt: {dla_core: 0}\n", "c.yaml:3: tensorrt: dla_core needs precision_policy fp16"),
        ("components: {a: {keep_fp32: ['(']}}\n", "c.yaml:3: components.a.keep_fp32[0]: is '('; should be a regular"),
        ("components: {a: {onnx_file: ../b.onnx}}\n", "c.yaml:3: components.a.onnx_file: is '../b.onnx'; should be a"),
        (
            "components: {a: {onnx_file: x.onnx}, b: {onnx_file: x.onnx}}\n",
            "c.yaml:3: components.b.onnx_file: is 'x.onnx'; components.a has the same; give each its own",
        ),
        (
            "components: {a: {tensorrt_profile: {x: {min_shape: [1, 5], opt_shape: [1, 3], max_shape: [1, 9]}}}}\n",
            "c.yaml:3: components.a.tensorrt_profile.x: axis 1 has min 5, opt 3, max 9; each should be at least",
        ),
        (
            "components: {a: {tensorrt_profile: {x: {min_shape: [1], opt_shape: [1, 3], max_shape: [1, 9]}}}}\n",
            "c.yaml:3: components.a.tensorrt_profile.x: min_shape, opt_shape and max_shape should have equally many",
        ),
        (
            "components: {a: {io: {inputs: [{name: x}], outputs: [{name: y}], dynamic_axes: {z: {0: n}}}}}\n",
            "c.yaml:3: components.a.io: dynamic_axes names 'z', which is neither input nor output; there are x, y",
        ),
        (
            "components: {a: {io: {inputs: [{name: x}], outputs: [{name: x}]}}}\n",
            "c.yaml:3: components.a.io: names x more than once",
        ),
        (
            "components:\n  a:\n    io: {inputs: [{name: x}]}\n    tensorrt_profile:\n"
            "      y: {min_shape: [1], opt_shape: [1], max_shape: [1]}\n",
            "c.yaml:4: components.a: has a profile for 'y', which is not an input; inputs are x",
        ),
    ],
)
def test_each_mistake_gives_its_line(tmp_path: Path, text: str, line: str) -> None:
    lines = refusals(tmp_path, MODEL + text)
    assert len(lines) == 1
    assert lines[0].startswith(line), lines[0]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = refusals(
        tmp_path,
        "model:\n  type: centerpoint\n  confg: a.py\nexport:\n  mode: 3\nverification:\n  tolerance: small\n",
        "evaluation.num_samples=none",
        "exprt.mode=onnx",
    )
    assert len(lines) == 5
    assert [line.split(": ")[1] for line in lines if line.startswith("c.yaml")] == [
        "model.confg",
        "export.mode",
        "verification.tolerance",
    ]


def test_without_a_model_there_is_no_config(tmp_path: Path) -> None:
    assert refusals(tmp_path, "export: {mode: onnx}\n") == ["c.yaml:1: model: is missing and has no default"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "c.yaml: is empty"),
        ("- a\n", "c.yaml: is a list, where sections should be"),
        ("model: {type: a\nexport: b\n", "c.yaml:2:7: is not valid YAML"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "c.yaml:5:3: duplicate key 'c' in the mapping that begins on line 3"),
        ("a: &x\n  b: *x\n", "c.yaml"),
        ("a: !!python/object/apply:os.system ['true']\n", "c.yaml:1:4: is not valid YAML"),
        (BOMB, "c.yaml: has more than"),
        ("a: &x {<<: *x}\n", "c.yaml: has more than 100000 keys and values, or an alias inside itself"),
        (f"a: {'[' * 3000}", "c.yaml:1:53: is nested deeper than 50 levels"),
        (f"x: &x {'[' * 50}{']' * 50}\nx: 1\n", "c.yaml:1:56: is nested deeper than 50 levels"),
        ("? [a, b]\n: c\n", "c.yaml:1:3: is not valid YAML: a list can't be a key"),
        ("a: \x07\n", "c.yaml: is not valid YAML: unacceptable character #x0007"),
    ],
)
def test_what_is_not_yaml_is_refused_at_its_place(tmp_path: Path, text: str, line: str) -> None:
    lines = refusals(tmp_path, text)
    assert len(lines) == 1
    assert lines[0].startswith(line), lines[0]


def test_a_binary_or_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"c\.yaml: can't be read \(it is not UTF-8 text\)"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"d\.yaml: no such config file"):
        load_config(tmp_path / "d.yaml")
    with pytest.raises(InputError, match="can't be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("export.mod=onnx", "--set export.mod=onnx: export.mod: unknown key; did you mean 'mode'?"),
        ("mode=onnx", "--set mode=onnx: mode: unknown key; did you mean export.mode or"),
        ("export.mode", "--set export.mode: should be KEY=VALUE, for example --set export.mode=onnx"),
        ("=3", "--set =3: should be KEY=VALUE"),
        ("export.mode=onxn", "--set export.mode=onxn: export.mode: is 'onxn'; should be one of"),
        ("export.mode=[", "--set export.mode=[: the value is not valid YAML"),
        ("export.mode.x=1", "--set export.mode.x=1: export.mode.x: unknown key"),
        (
            "verification.scenarios.both[3].optional=true",
            "--set verification.scenarios.both[3].optional=true: there is no entry [3]",
        ),
        ("data.root=${SURELY_NOT_SET}", "--set data.root=${SURELY_NOT_SET}: data.root: is '${SURELY_NOT_SET}', but"),
    ],
)
def test_a_wrong_override_is_told_as_it_was_typed(tmp_path: Path, override: str, line: str) -> None:
    lines = refusals(tmp_path, MODEL, override)
    assert len(lines) == 1
    assert lines[0].startswith(line), lines[0]
