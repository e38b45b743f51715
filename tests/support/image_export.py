"""Networks of images, exported as they are and run by our pipeline in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.data.types import ImageSample
from shared.lazy import lazy_import
from shared.spec import ModelSpec
from tests.support.tiny_yolox import write_images

ort = lazy_import("onnxruntime")


def sample_of(image: Path) -> ImageSample:
    """An image that is a sample."""
    return ImageSample(0, "0", 0.0, "", image)


def samples(folder: Path) -> list[ImageSample]:
    """The images that `component_of` wrote."""
    return [sample_of(path) for path in sorted((folder / "images").glob("*.png"))]


class OnnxSession:
    """A component's ONNX file in ONNX Runtime."""

    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, path: Path) -> None:
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        """Outputs by name."""
        return dict(zip(self.names, self.session.run(self.names, dict(inputs)), strict=True))


def component_of(folder: Path, adapter: Any, built: tuple[Any, Any, Any]) -> Any:
    """The one component of a model (with its training config and options) for images that are written to ``folder``."""
    model, training, options = built
    parameters = adapter.parameters(model, training, options)
    image = sample_of(write_images(folder / "images")[0])
    (component,) = adapter.components(model, adapter.load_input(image, parameters), options)
    return component


def exported(folder: Path, name: str, adapter: Any, built: tuple[Any, Any, Any]) -> tuple[Any, Path]:
    """The pipeline of an exported model called ``name``, and its file; the export's own check has passed.

    ONNX Runtime does not load a file with a plugin of TensorRT: then there is no pipeline.
    """
    from exporter.artifacts.checks import check_onnx
    from exporter.artifacts.onnx_export import export_onnx
    from runtime.pipeline import build_pipeline

    component = component_of(folder, adapter, built)
    path = folder / "yolox.onnx"
    export_onnx(component, path, exporter="torchscript", opset_version=17)
    check_onnx(path, component, 17)
    if component.before_plugin is not None:
        return None, path
    spec = ModelSpec(
        model=name,
        task=adapter.TASK,
        classes=adapter.classes(built[0]),
        components=[component.spec("onnx/yolox.onnx", None)],
        parameters=adapter.parameters(*built),
    )
    return build_pipeline(spec, OnnxSession(path)), path
