"""Whatever config is valid survives being written as YAML and read again, unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from shared.config import load_config, resolved
from shared.config.load import build
from shared.config.write import to_yaml
from shared.config.yaml_tree import Tree, parse_yaml

# Texts that YAML likes to take for something else, and any other printable ones.
TRICKY = [
    "on",
    "no",
    "null",
    "~",
    "1e3",
    "0x1f",
    "2026-11-20",
    "12:30:45",
    "- a",
    "a: b",
    "#c",
    "",
    " x ",
    "'",
    "{}",
    "=",
    ":0",
    "?_",
    "a?",
    "<<",
]
names = st.sampled_from([text for text in TRICKY if text]) | st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
)
numbers = st.floats(1e-300, 1e300) | st.integers(1, 10**12).map(float)
# A text with NUL is none of a config's: it is refused.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
json_values = st.recursive(
    plain | st.sampled_from(TRICKY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
shapes = st.lists(st.integers(1, 4096), min_size=1, max_size=5)
profiles = shapes.map(lambda shape: dict.fromkeys(("min_shape", "opt_shape", "max_shape"), shape))
policies = st.sampled_from(["auto", "fp32", "fp16", "bf16", "int8", "explicit_int8", "strongly_typed"])


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config as plain values."""
    component_names = draw(st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), max_size=3, unique=True))
    return {
        "task_type": draw(st.sampled_from(["detection3d", "detection2d", "classification"])),
        "model": {
            "type": draw(names),
            "checkpoint": "a.pth",
            "options": draw(st.dictionaries(names, json_values, max_size=3)),
        },
        "devices": draw(st.dictionaries(names, st.sampled_from(["cpu", "cuda", "cuda:7"]), max_size=3))
        | {"cuda": "cuda:1"},
        "data": {
            "root": "d",
            "classes": draw(st.lists(names, max_size=3)),
            "label_map": draw(st.dictionaries(names, st.none() | names, max_size=3)),
            "intensity_scale": draw(numbers),
            "allow_absolute_paths": draw(st.booleans()),
        },
        "export": {
            "mode": draw(st.sampled_from(["onnx", "trt", "both", "none"])),
            "opset_version": draw(st.integers(16, 22)),
            "simplify": draw(st.sampled_from(["none", "onnxsim", "onnxslim", "polygraphy"])),
        },
        "components": {
            name: {
                "onnx_file": f"{name}.onnx",
                "engine_file": f"{name}.engine",
                "io": {
                    "dynamic_axes": draw(
                        st.none()
                        | st.dictionaries(names, st.dictionaries(st.integers(0, 5), names, max_size=3), max_size=2)
                    )
                },
                "tensorrt_profile": draw(st.dictionaries(names, profiles, max_size=2)),
                "precision_policy": draw(st.none() | policies),
            }
            for name in component_names
        },
        "tensorrt": {"precision_policy": draw(policies), "max_workspace_size": draw(st.integers(1, 2**40))},
        "verification": {
            "tolerance": draw(numbers),
            "output_tolerances": draw(st.dictionaries(names, numbers, max_size=3)),
        },
        "evaluation": {"num_samples": draw(st.just(-1) | st.integers(1, 10**6)), "enabled": draw(st.booleans())},
    }


@settings(max_examples=60)
@given(value=configs())
def test_yaml_and_back_is_the_same_config(value: dict[str, Any]) -> None:
    path = Path("/configs/c.yaml")
    config = build(Tree(value, {}), path)
    written = to_yaml(resolved(config))
    again = build(parse_yaml(written, "again"), path)
    assert again == config
    assert to_yaml(resolved(again)) == written


@settings(max_examples=200)
@given(value=json_values)
def test_values_survive_yaml(value: Any) -> None:
    read = parse_yaml(to_yaml({"x": value}), "x").value
    assert read == {"x": value}
    assert repr(read) == repr({"x": value})


def test_templates_survive(tmp_path: Path) -> None:
    for template in (Path(__file__).parents[2] / "shared" / "config" / "templates").glob("*.yaml"):
        config = load_config(template)
        path = tmp_path / template.name
        path.write_text(to_yaml(resolved(config)), encoding="utf-8")
        assert load_config(path) == config
