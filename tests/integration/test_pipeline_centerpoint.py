"""The CenterPoint pipeline on a stand-in session: frames do not touch one another; tasks, conventions, losses."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.backends import available_backends
from runtime.pipeline import available_pipelines, build_pipeline
from shared.errors import InferenceError, ManifestError
from tests.support import plugin_packages
from tests.support import tiny_centerpoint as tiny


class StandIn:
    """Components in NumPy: the head is a fixed mixture of the canvas, so that every pillar shows in the boxes."""

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, spec, swap=False):
        rng = np.random.default_rng(0)
        self.encoder_rows = []
        self._encode = rng.normal(0, 0.3, (10, tiny.CHANNELS)).astype(np.float32)
        self._outputs = [(tensor.name, int(tensor.shape[1])) for tensor in spec.components[1].outputs]
        self._weights = {
            name: rng.normal(0, 0.4, (tiny.CHANNELS, count)).astype(np.float32) for name, count in self._outputs
        }
        self._swap = swap

    def run(self, component, inputs):
        (value,) = inputs.values()
        if component == "pts_voxel_encoder":
            self.encoder_rows.append(len(value))
            return {"pillar_features": np.maximum(value @ self._encode, 0).max(axis=1, keepdims=True)}
        cells = value[0, :, ::2, ::2]
        outputs = {name: np.einsum("cyx,ck->kyx", cells, self._weights[name])[None] for name, _ in self._outputs}
        if self._swap:
            outputs["dim"] = outputs["dim"][:, [1, 0, 2]]
            outputs["rot"] = -outputs["rot"][:, [1, 0]]
        return outputs


def make(**options):
    spec = tiny.spec(**options)
    return build_pipeline(spec, StandIn(spec, swap=options.get("y_axis", False)))


def frame(count, seed=0):
    points = np.random.default_rng(seed).normal(0, 5, (count, 4)).astype(np.float32)
    points[:, 2] = np.clip(points[:, 2], -2.9, 4.9)
    return points


def rows(boxes):
    columns = (boxes.centers, boxes.sizes, boxes.yaws, boxes.velocities, boxes.labels, boxes.scores)
    return np.concatenate([column.reshape(len(boxes), -1) for column in columns], axis=1)


def test_requests_do_not_leak_into_one_another():
    reused = make()
    for seed, count in enumerate([900, 0, 1, 30, 900, 2]):
        points = frame(count, seed)
        fresh = make().infer(points)
        answer = reused.infer(points)
        assert rows(answer.predictions).tobytes() == rows(fresh.predictions).tobytes()
        assert answer.counters == fresh.counters
        assert answer.counters["points"] == count
        for name, value in fresh.outputs.items():
            assert answer.outputs[name].tobytes() == value.tobytes()


def test_an_empty_frame_asks_no_encoder_and_one_pillar_is_padded():
    spec = tiny.spec()
    session = StandIn(spec)
    pipeline = build_pipeline(spec, session)
    empty = pipeline.infer(frame(0))
    assert session.encoder_rows == []
    assert empty.counters["voxels"] == 0
    one = pipeline.infer(np.float32([[0.5, 0.5, 0.5, 0.0]]))
    assert session.encoder_rows == [2]
    assert one.counters["voxels"] == 1


def test_the_latency_comes_with_the_answer_and_adds_up():
    answer = make().infer(frame(500))
    stages = {name: value for name, value in answer.latency_ms.items() if name != "total"}
    assert list(stages) == [
        "voxelize", "decorate", "pts_voxel_encoder", "scatter", "pts_backbone_neck_head", "decode", "circle_nms"
    ]  # fmt: skip
    assert sum(stages.values()) == pytest.approx(answer.latency_ms["total"])


def test_several_tasks_have_global_labels_and_their_own_radius():
    answer = make(two_tasks=True).infer(frame(900))
    labels = set(answer.predictions.labels.tolist())
    assert labels <= {0, 1, 2}
    assert 2 in labels
    assert labels & {0, 1}
    # A task suppresses its own boxes only: squared distances are above 1 in the first, above 2 in the second.
    for labels, radius in (((0, 1), 1.0), ((2,), 2.0)):
        centers = answer.predictions.centers[np.isin(answer.predictions.labels, labels)][:, :2]
        squared = np.square(centers[:, None] - centers[None]).sum(-1) + 99 * np.eye(len(centers))
        assert squared.min() > radius
    assert len(answer.predictions) > len(make().infer(frame(900)).predictions)


def test_a_y_axis_export_gives_the_same_boxes_and_the_same_comparable_outputs():
    plain, swapped = make(), make(y_axis=True)
    expected, answer = plain.infer(frame(900)), swapped.infer(frame(900))
    assert len(expected.predictions) > 0
    assert rows(answer.predictions).tobytes() == rows(expected.predictions).tobytes()
    comparable = swapped.comparable(answer.outputs)
    for name, value in plain.comparable(expected.outputs).items():
        np.testing.assert_array_equal(comparable[name], value)


def test_lost_voxels_and_nan_are_reported_with_numbers():
    pipeline = make(max_voxels=50)
    points = frame(900)
    points[:7, 3] = np.nan
    counters = {"read": 900, "read_nan": 7, **pipeline.infer(points).counters}
    assert counters["points_nan"] == 7
    alerts = pipeline.alerts(counters)
    assert f"{counters['voxels_dropped']} of {counters['voxels_dropped'] + 50} voxels did not fit" in alerts[0]
    assert alerts[1].startswith("7 of 900 points are NaN")
    assert pipeline.alerts({**counters, "voxels_dropped": 0, "read_nan": 0}) == []


def test_points_of_another_width_are_refused():
    with pytest.raises(InferenceError, match=r"shape \(10, 5\), the model takes \(N, 4\)"):
        make().infer(np.zeros((10, 5), np.float32))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("voxel_size", None, "voxel_size"),
        ("grid_size", [32, 32, 4], "pillars have 1"),
        ("surprise", 1, "surprise"),
        ("max_voxels", 0, "max_voxels"),
        ("points", {"load_dim": 5, "use_dims": [0]}, "use_dims"),
        ("nms", {"type": "rotate", "radius": [1.0], "post_max_size": 9}, "nms.type"),
        ("nms", {"type": "circle", "radius": [1.0, 1.0], "post_max_size": 9}, "2 entries for 1 tasks"),
        ("tasks", [{"classes": ["car"], "outputs": {"heatmap": "heatmap"}}], "outputs"),
    ],
)
def test_impossible_parameters_are_one_line(key, value, message):
    spec = tiny.spec()
    spec.parameters[key] = value
    with pytest.raises(ManifestError, match=message) as caught:
        build_pipeline(spec, StandIn(spec))
    assert "\n" not in str(caught.value)


def test_pipelines_and_backends_are_found_by_their_modules():
    assert "centerpoint" in available_pipelines()
    assert {"onnx", "pytorch"} <= set(available_backends())
    assert not [name for name in available_backends() if name.startswith("_")]


def test_another_package_adds_a_pipeline_by_an_entry_point(monkeypatch, tmp_path):
    plugin_packages.install(
        monkeypatch,
        tmp_path,
        "our_package",
        {"ours/pipeline.py": "def build(spec, session):\n    return spec.model, session"},
        {"awml_deploy.pipelines": {"ours": "our_package.ours"}},
    )
    spec = tiny.spec().model_copy(update={"model": "ours"})
    session = StandIn(spec)
    assert build_pipeline(spec, session) == ("ours", session)
    with pytest.raises(ManifestError, match=r"kind 'other'.*there are: .*centerpoint, .*ours"):
        build_pipeline(spec.model_copy(update={"model": "other"}), StandIn(spec))
