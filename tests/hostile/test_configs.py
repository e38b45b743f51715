"""Deploy configs: YAML and Python files that are broken, huge when unfolded, or full of values of another kind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.config import load_config, resolved
from tests.hostile.commands import run
from tests.hostile.values import FILES, VALUES, places, replaced

ROOT = Path(__file__).parents[2]
CONFIGS = ("centerpoint", "yolox", "calibration", "centerpoint_int8")

YAML = {
    "aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "merge keys": "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "itself": "a: &a [*a]\n",
    "deep flow": "a: " + "[" * 5000 + "]" * 5000,
    "deep block": "".join(" " * n + "a:\n" for n in range(2000)),
    "python tag": "a: !!python/object/apply:os.system ['true']\n",
    "unknown tag": "a: !nothing b\n",
    "keys twice": "export: {mode: onnx}\nexport: {mode: trt}\n",
    "odd keys": "{[1, 2]: 3}: 4\n",
    "NaN": "evaluation: {num_samples: .nan}\n",
    "infinite": "verification: {tolerance: .inf}\n",
    "huge number": f"evaluation: {{num_samples: {'9' * 5000}}}\n",
    "huge exponent": "verification: {tolerance: 1e99999}\n",
    "NUL": 'model: {type: "center\\0point"}\n',
    "surrogate": 'model: {type: "\\ud800"}\n',
    "escapes": 'model: {type: "\\e[31m\\n"}\n',
    "control": "model: {type: \x1b[31m}\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "anchor": "*nothing\n",
    "tabs": "a:\n\tb: 1\n",
    "long key": "? " + "k" * 100_000 + "\n: 1\n",
    "many problems": "".join(f"key{n}: 1\n" for n in range(3000)),
    "binary": "a: !!binary aGVsbG8=\n",
    "set": "a: !!set {b, c}\n",
    "timestamp": "a: !!timestamp 2026-13-45\n",
    "many values": "a: [" + "1, " * 40_000 + "1]\n",
    "many keys": "".join(f"key{n}: {{a: 1}}\n" for n in range(9_000)),
    "int tag": "a: !!int hello\n",
}  # fmt: skip

PYTHON = {
    "doubled dictionaries": "a = dict(x=1)\n" + "a = dict(l=a, r=a)\n" * 40,
    "doubled lists": "a = [1]\n" + "a = [a, a]\n" * 40,
    "added lists": "a = [1]\n" + "a = a + a\n" * 60,
    "unpacked lists": "a = [1]\n" + "a = [*a, *a]\n" * 60,
    "doubled text": "a = 'x'\n" + "a = a + a\n" * 60,
    "doubled f-string": "a = 'x'\n" + "a = f'{a}{a}'\n" * 60,
    "power": "a = 9 ** 9 ** 9 ** 9\n",
    "shift": "a = 1 << 10 ** 12\n",
    "times": "a = [0] * 10 ** 12\n",
    "products": "a = 2.0\n" + "a = a * a\n" * 60,
    "nested": "a = " + "[" * 90 + "]" * 90 + "\n",
    "deep": "a = " + "-" * 50_000 + "1\n",
    "deep sum": "a = " + "1+" * 50_000 + "1\n",
    "exit": "import sys\nsys.exit(0)\n",
    "call": "a = exec('1')\n",
    "base itself": "_base_ = './config.py'\n",
    "base device": "_base_ = '/dev/zero'\n",
    "base NUL": "_base_ = 'a\\0b.py'\n",
    "base number": "_base_ = 5\n",
    "bases": "_base_ = ['other.py'] * 3\n",
    "NUL": "a = 'x\\0y'\n",
    "real NUL": "a = 1\0\n",
    "surrogate": "a = '\\ud800'\n",
    "comprehension": "a = [i for i in range(10 ** 12)]\n",
    "while": "while True:\n    pass\n",
    "encoding": "# -*- coding: nothing -*-\na = 1\n",
    "form": "a = '%1000000000d' % 1\n",
    "subscript": "a = {}[[]]\n",
    "numbers": f"a = {'9' * 5000}\n",
    "float": "a = 1e999\n",
    "key": "a = {1.5: 2, None: 3}\n",
    "components": "components = dict(a=5)\nonnx_config = 7\nbackend_config = []\n",
    "codebase": "codebase_config = dict(type=['a'], model_type={})\n",
    "export": "export = dict(mode=[1], checkpoint=5)\nruntime_io = 7\nverification = []\nevaluation = 'x'\n",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(YAML[name])
    answer = run(["exporter", "config", "show", "--config", str(file)])
    assert answer.faults([0, 2] if name == "escapes" else [2]) == [], answer.err[:3000]


@pytest.mark.parametrize("name", PYTHON)
def test_python(tmp_path: Path, name: str) -> None:
    file = tmp_path / "config.py"
    file.write_text(PYTHON[name])
    for command in ("show", "convert"):
        answer = run(["exporter", "config", command, *(["--config"] if command == "show" else []), str(file)])
        assert answer.faults([2, 3]) == [], answer.err[:3000]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", ["yaml", "py"])
def test_the_file_is_something_else(tmp_path: Path, kind: str, suffix: str) -> None:
    file = tmp_path / f"config.{suffix}"
    FILES[kind](file)
    for command in (["exporter", "config", "show"], ["exporter", "export", "--work", str(tmp_path / "work")]):
        answer = run([*command, "--config", str(file)])
        assert answer.faults([2, 3]) == [], answer.err[:3000]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_value_is_another(tmp_path: Path, name: str, value: str) -> None:
    whole: Any = resolved(load_config(ROOT / "configs" / f"{name}.yaml"))
    file = tmp_path / "config.yaml"
    for place in random.Random(f"{name}{value}").sample(list(places(whole)), 2):
        file.write_text(yaml.safe_dump(json.loads(json.dumps(replaced(whole, place, VALUES[value])))))
        answer = run(["exporter", "config", "show", "--config", str(file)])
        assert answer.faults([0, 2]) == [], f"{place}: {answer.err[:3000]}"


@pytest.mark.parametrize("override", ["", "=", "a", "a.b[999999999999]=1", "export=[[[", "export.mode=\x1b[31m",
    "model.options.out_size_factor=0", "data.classes=" + "[" * 2000, "x" * 10_000 + "=1", "export.mode=onnx\ntrt",
    "verification.tolerance=.nan", "evaluation.num_samples=99999999999999999999999", "data.root='a\0b'"])  # fmt: skip
def test_overrides(override: str) -> None:
    answer = run(["exporter", "config", "show", "--config", str(ROOT / "configs/centerpoint.yaml"), "--set", override])
    assert answer.faults([0, 2]) == [], answer.err[:3000]
