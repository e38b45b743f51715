"""AWML's own deploy configs, all of every branch of both repositories, where AWML_FILES names a folder of them.

The files stay outside of the project. The folder holds them anywhere below ``deploy/``, each under the path that it has
in its repository: of every ref of tier4/AWML and vividf/AWML the files ``projects/*/deploy/configs/*.py``,
``projects/*/deploy/deploy_config*.py``, ``projects/*/configs/deploy/**/*.py`` and
``deployment/projects/*/config*/**/*.py``, one for each content. Those of FRNet build upon training configs, which lie
beside them as they do in the same ref: ``projects/FRNet/configs/**/*.py`` and ``autoware_ml/configs/**/*.py``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.config import load_config
from shared.config.awml import read_awml
from shared.config.convert import convert_awml
from shared.config.python_literals import read_python_literals
from shared.config.walk import KeyPath
from shared.errors import ConfigError

FOLDER = os.environ.get("AWML_FILES", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="AWML_FILES names no folder with AWML's configs")

LOADED = {"calibration": 11, "centerpoint": 15, "frnet": 5, "yolox": 5}
FOREIGN = {"BEVFusion": 23, "MobileNetv2": 6, "TransFusion": 1}
TRAINING = re.compile(r"/autoware_ml/configs/|/projects/FRNet/configs/(?!deploy/)")


def files() -> list[Path]:
    return [path for path in sorted(Path(FOLDER).glob("deploy/**/*.py")) if TRAINING.search(path.as_posix()) is None]


def test_every_file_loads_or_is_of_a_model_that_is_not_here() -> None:
    loaded, foreign = Counter[str](), Counter[str]()
    for path in files():
        try:
            loaded[load_config(path).model.type] += 1
        except ConfigError as error:
            (line,) = error.lines()
            _, is_foreign, rest = line.partition("is a deploy config of ")
            assert is_foreign, line
            foreign[rest.partition(",")[0]] += 1
    # A model that is added moves its files from the second line to the first.
    assert sum(loaded.values()) + sum(foreign.values()) == sum(LOADED.values()) + sum(FOREIGN.values()) == 66
    assert {name: loaded[name] for name in LOADED} == LOADED
    assert all(FOREIGN[name] == count for name, count in foreign.items())


def test_conversions_mean_the_same_and_say_what_became_of_every_key(tmp_path: Path) -> None:
    for number, path in enumerate(files()):
        try:
            config = load_config(path)
        except ConfigError:
            continue
        out = tmp_path / str(number) / "converted.yaml"
        out.parent.mkdir()
        text, notes = convert_awml(path, out)
        out.write_text(text, encoding="utf-8")
        assert load_config(out) == config, path
        told = [note.keys for note in notes if note.keys]
        read = read_python_literals(path)
        for keys in set_keys({key: value for key, value in read.items() if read.lines[key][0] == path}):
            kept = is_in(read_awml(path).value, keys)
            assert kept or any(keys[: len(note)] == note or note[: len(keys)] == keys for note in told), (path, keys)


def set_keys(value: Any, keys: KeyPath = ()) -> Iterator[KeyPath]:
    """Key paths of a file, down to the keys of its sections and of those in ``quantization``."""
    depth = 3 if keys[:1] == ("quantization",) else 2
    if isinstance(value, Mapping) and len(keys) < depth:
        for key, item in value.items():
            yield from set_keys(item, (*keys, key))
    elif value is not None:
        yield keys


def is_in(value: Any, keys: KeyPath) -> bool:
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True
