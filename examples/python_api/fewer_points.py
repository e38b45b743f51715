"""How many lidar points does a detector need? A notebook as a script: run it whole, or cell by cell (``# %%``).

.venv/tools/bin/python examples/python_api/fewer_points.py work/my-model
"""

# %% The model, out of the workspace that the tools left, on ONNX Runtime

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from runtime.model import open_model
from shared.data.labels import labels_in
from shared.table import Table, number
from shared.tasks import find

FRAMES = 2
SHARES = (1.0, 0.5, 0.1)  # of the points

model = open_model(Path(sys.argv[1]), "onnx", "cpu")
_, pipeline = model.load()
task, classes = find(model.spec.task), model.spec.classes
samples = [model.dataset.sample(index) for index in range(FRAMES)]
clouds = [pipeline.read(sample).data for sample in samples]  # (N, 4) float32 each: x, y, z [m] and age [s]
print(f"{model.spec.model}, {len(classes)} classes; {FRAMES} frames of {sum(map(len, clouds)) // FRAMES} points")

# %% Its answers to all points, and to a random share of them

random = np.random.default_rng(0)
answers = {share: [pipeline.infer(cloud[random.random(len(cloud)) < share]) for cloud in clouds] for share in SHARES}

# %% The boxes compared with those of all points, and with the labels (whose classes have numbers of their own)

metric = task.quick_metric(samples, labels_in(classes, model.dataset.classes), classes)
whole = [answer.predictions for answer in answers[1.0]]
rows = []
for share, given in answers.items():
    boxes = [answer.predictions for answer in given]
    pairs = [task.pair(reference, test) for reference, test in zip(whole, boxes, strict=True)]
    off = np.concatenate([pair.errors["center"] for pair in pairs])
    matched = sum(pair.matched for pair in pairs)
    rows.append([f"{share:.0%}", str(matched), number(off.mean(), 3), number(metric.score(boxes), 3)])
print(Table("Fewer points", ["points", "same boxes", "off by [m]", metric.name], rows).text())
