"""AWML's own model configs, all of every branch of both repositories, where AWML_FILES names a folder of them.

The files stay outside of the project. ``model_files.txt`` in the folder lists them, one path a line, one file for each
content; each lies in a tree of its branch's config folders, so that its bases are found.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

LIST = Path(os.environ.get("AWML_FILES", "")) / "model_files.txt"
pytestmark = [
    pytest.mark.exporter,
    pytest.mark.timeout(1800),  # a minute and a half on a machine that does nothing else
    pytest.mark.skipif(not LIST.is_file(), reason="AWML_FILES names no folder with AWML's model_files.txt"),
]

INSPECTED = {"calibration": 1, "centerpoint": 201, "yolox": 12}
# Why the others are not: how the line reads, and how many of them. The last six are broken in AWML.
REASONS = {
    r"no model": 1,  # a piece for test-time augmentation
    r"refused: model is a YOLOXMultiTask \(of projects\.YOLOX_opt_elan\.yolox\.models\.yolox_multitask\)": 3,
    r"refused: pts_backbone is a FastVitMA36, .*\(of projects\.FastVIT\)": 1,
    r"refused: pts_voxel_encoder is HardSimpleVFE; only a CenterPoint on pillars": 1,
    r"refused: CalibrationClassificationTransform is that of AWML before September 2025": 9,
    r"refused: the box coder has no post_center_range": 2,  # a base of others
    r"refused: the test pipeline loads 5 columns .*, the voxel encoder takes 4": 1,
    r"unreadable: .*FileNotFoundError": 8,
    r"unreadable: .*SyntaxError": 3,
    r"unreadable: .*AttributeError": 1,
    r"unreadable: .*ConfigParsingError": 1,
}


def test_every_config_is_inspected_or_refused_in_a_line_that_says_why() -> None:
    from exporter.inspection_summary import summarize

    inspected, refused, unforeseen = Counter[str](), defaultdict[str, list[str]](list), []
    for line in summarize([Path(path) for path in LIST.read_text().split()]):
        if line.result == "inspected":
            inspected[line.model] += 1
            continue
        known = [reason for reason in REASONS if re.search(reason, f"{line.result}: {line.reason}")]
        refused[known[0] if known else line.reason].append(str(line.path))
        if not known or line.result == "failed":
            unforeseen.append(line)
    assert unforeseen == []
    assert inspected == INSPECTED
    assert {reason: len(files) for reason, files in refused.items()} == REASONS
