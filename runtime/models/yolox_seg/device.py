"""A YOLOX with a mask head on a GPU: what `runtime.models.yolox.device` does, and the mask beside the boxes.

image -> upload -> letterbox -> the network -> select -> nms -> download
                                            -> mask ------------------^

The stage ``mask`` is what the mask takes longer than the boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from runtime.cuda.session import DeviceSession
from runtime.models.yolox.device import Images, OneImageOnDevice
from runtime.models.yolox_seg.device_mask import MaskMemory, MasksOnDevice, mask_in
from runtime.models.yolox_seg.parameters import DETECTION, SEGMENTATION, YoloxSegParameters
from runtime.pipeline import Inference, Interface
from shared.several_tasks import Answers
from shared.spec import ModelSpec


class YoloxSegOnDevice(OneImageOnDevice):
    """A YOLOX with a mask head whose requests stay on the GPU until the boxes and the mask are known."""

    more_stages: ClassVar[tuple[str, ...]] = ("mask",)

    def __init__(
        self, interface: Interface, spec: ModelSpec, parameters: YoloxSegParameters, session: DeviceSession
    ) -> None:
        super().__init__(interface, spec, parameters, session)
        probabilities = self._bound.outputs[spec.components[0].outputs[1].name]
        self._of_mask = self._gpu.stream()
        self._masks = MasksOnDevice(self._gpu, self._of_mask, probabilities, parameters)
        self._network_done, self._mask_done = self._gpu.event(), self._gpu.event()
        self._of_masks: dict[tuple[int, int], MaskMemory] = {}

    def answer(self, request: Images, *, stages: bool) -> Inference:
        """See `DevicePipeline`."""
        inference = self.answers(request, stages=stages)
        (placement,) = request.placements
        mask, pixels_nan = mask_in(self._of_masks[placement.height, placement.width])
        answers = Answers({DETECTION: inference.predictions[0], SEGMENTATION: mask})
        counters = {**inference.counters, "pixels_nan": pixels_nan}
        return Inference(answers, inference.outputs, inference.latency_ms, counters)

    def _prepare(self, memory: Images) -> None:
        (placement,) = memory.placements
        kept = {size: masks for size, masks in self._of_masks.items() if (size,) in self._prepared}
        self._of_masks = {**kept, (placement.height, placement.width): self._masks.memory(placement)}

    def _enqueue_answer(self, memory: Images, mark: Callable[[str], None]) -> None:
        (placement,) = memory.placements
        masks = self._of_masks[placement.height, placement.width]
        self._network_done.record(self._stream)
        self._network_done.hold(self._of_mask)
        self._masks.enqueue(masks)
        self._mask_done.record(self._of_mask)
        super()._enqueue_answer(memory, mark)
        self._mask_done.hold(self._stream)
        mark("mask")
