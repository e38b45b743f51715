"""All readers that are fuzzed; those of a framework that is not installed here are left out."""

from __future__ import annotations

import importlib.util

from tests.fuzz.configs import PYTHON, YAML
from tests.fuzz.data_files import MASKS, PCD, SCORES
from tests.fuzz.info_pickle import READER as INFO_PICKLE
from tests.fuzz.json_files import JOURNAL, MANIFEST, POLYGRAPHY, RECORD

_READERS = [INFO_PICKLE, MANIFEST, JOURNAL, RECORD, POLYGRAPHY, YAML, PYTHON, PCD, MASKS, SCORES]
if importlib.util.find_spec("onnx") is not None:
    from tests.fuzz.given_onnx import GIVEN_ONNX

    _READERS.append(GIVEN_ONNX)

READERS = {reader.name: reader for reader in _READERS}
