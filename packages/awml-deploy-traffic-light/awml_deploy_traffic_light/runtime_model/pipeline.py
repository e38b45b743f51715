"""The pipeline of a classifier: crop -> prepare -> the network -> decide."""

from __future__ import annotations

import numpy as np

from awml_deploy_traffic_light.names import INPUT, OUTPUT
from awml_deploy_traffic_light.runtime_model.image import ImageInput
from awml_deploy_traffic_light.runtime_model.prepare import prepare
from runtime.backends import Session
from runtime.parameters import Parameters, misfit, validated
from runtime.pipeline import (
    ArraysByName,
    Counters,
    HostPipeline,
    Interface,
    Pipeline,
    PipelineInput,
    Step,
    component_step,
    one_array,
    predictions_of,
)
from shared.arrays import Float32, UInt8
from shared.data.crops import ImageCrop
from shared.data.views import IMAGE_CROP, sample_of
from shared.spec import ModelSpec
from shared.tasks.classification import ClassScores

# The logarithm of a probability that was rounded to zero.
_SMALLEST = np.finfo(np.float32).tiny


class ClassifierParameters(Parameters):
    """What the exporter wrote: how an image becomes the input."""

    image: ImageInput


def read_parameters(spec: ModelSpec) -> ClassifierParameters:
    """The parameters of a classifier.

    Raises:
        ManifestError: one is missing, unknown or impossible, or they don't fit the spec's component.
    """
    parameters = validated(ClassifierParameters, spec)
    if len(spec.components) != 1:
        raise misfit("a classifier is one component")
    (component,), image = spec.components, parameters.image
    if [tensor.name for tensor in (*component.inputs, *component.outputs)] != [INPUT, OUTPUT]:
        raise misfit(f"{component.name} should have the tensors {INPUT} and {OUTPUT}")
    if component.inputs[0].shape[1:] != [3, image.height, image.width]:
        raise misfit(f"the input is {component.inputs[0].shape}, parameters.image says {image.height} x {image.width}")
    if component.outputs[0].shape[1:] != [len(spec.classes)]:
        raise misfit(f"the output is {component.outputs[0].shape}, there are {len(spec.classes)} classes")
    return parameters


def build(spec: ModelSpec, session: Session) -> Pipeline:
    """The pipeline of a classifier, see `runtime.pipeline.build_pipeline`; its buffers are allocated here, once."""
    image = read_parameters(spec).image
    (component,) = spec.components
    batch = component.inputs[0].shape[0]
    # A network of a fixed batch gets the image in its first place; the others stay zero.
    images = np.zeros((batch if isinstance(batch, int) else 1, 3, image.height, image.width), np.float32)

    def prepared(crop: UInt8) -> Float32:
        prepare(crop, image, images[0])
        return images

    def nan(outputs: ArraysByName) -> dict[str, int]:
        return {"probability_nan": int(np.isnan(outputs[OUTPUT][0]).sum())}

    steps = [
        Step("prepare", prepared, one_array(INPUT)),
        component_step(component, session, nan),
        Step("decide", lambda outputs: decided(outputs[OUTPUT][:1]), predictions_of(spec)),
    ]
    return HostPipeline(Interface(read, one_array("crop"), first_of, alerts), steps)


def read(sample: ImageCrop) -> PipelineInput:
    """(h, w, 3) uint8 pixels of a crop: blue, green, red.

    Raises:
        ConfigError: the data set gives no crops.
        InputError: the file is missing or broken, or its box has no pixel.
    """
    return PipelineInput(sample_of(IMAGE_CROP, ImageCrop, sample).read(), {})


def decided(probabilities: Float32) -> ClassScores:
    """The scores of an answer (1, classes): the likeliest class, the first of equal ones as in Autoware's node."""
    values = np.asarray(probabilities, np.float32)
    return ClassScores.build(np.log(np.maximum(values, _SMALLEST)), values.argmax(axis=1))


def first_of(outputs: ArraysByName) -> dict[str, Float32]:
    """The answer for the image in the first place."""
    return {OUTPUT: outputs[OUTPUT][:1]}


def alerts(counters: Counters) -> list[str]:
    """NaN."""
    if counters["probability_nan"]:
        return [f"{counters['probability_nan']} probabilities are NaN; look for an overflow with the verifier"]
    return []
