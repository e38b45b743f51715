"""libcuda in host memory: the functions that `shared.cuda` calls, for machines without a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

CONTEXT = 7
OUT_OF_MEMORY = 2
ALREADY_REGISTERED = 712
_LARGEST = 1 << 34


class HostLibrary:
    """Work is done when it is enqueued; events pass at once.

    Attributes:
        calls: pushed and popped contexts, and what was freed, in order.
        page_locked: bytes by address.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []
        self._memory: dict[int, Any] = {}
        self._handles = 0
        self.page_locked: dict[int, int] = {}

    def cuGetErrorName(self, code: int, text: Any) -> int:  # noqa: N802 (CUDA's names, here and below)
        text._obj.value = b"CUDA_ERROR_OUT_OF_MEMORY" if code == OUT_OF_MEMORY else b"?"
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = CONTEXT
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:  # noqa: N802
        self.calls.append(("push", context.value))
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:  # noqa: N802
        self.calls.append(("pop", context._obj.value))
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        return 0

    def cuMemAlloc_v2(self, address: Any, size: ctypes.c_size_t) -> int:  # noqa: N802
        if size.value > _LARGEST:
            return OUT_OF_MEMORY
        block = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
        address._obj.value = ctypes.addressof(block)
        self._memory[address._obj.value] = block
        return 0

    def cuMemHostRegister_v2(self, address: Any, size: Any, flags: Any) -> int:  # noqa: N802
        if address.value in self.page_locked:
            return ALREADY_REGISTERED
        self.page_locked[address.value] = size.value
        return 0

    def cuMemHostUnregister(self, address: Any) -> int:  # noqa: N802
        del self.page_locked[address.value]
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        self.calls.append(("free", address.value))
        del self._memory[address.value]
        return 0

    def cuMemsetD8_v2(self, address: Any, value: Any, size: Any) -> int:  # noqa: N802
        ctypes.memset(address.value, value.value, size.value)
        return 0

    def cuMemcpyHtoD_v2(self, address: Any, data: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(address.value, data.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, data: Any, address: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(data.value, address.value, size.value)
        return 0

    def cuStreamCreate(self, handle: Any, flags: Any) -> int:  # noqa: N802
        return self._new(handle)

    def cuStreamDestroy_v2(self, stream: Any) -> int:  # noqa: N802
        self.calls.append(("destroy stream", stream.value))
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        return 0

    def cuEventCreate(self, handle: Any, flags: Any) -> int:  # noqa: N802
        return self._new(handle)

    def cuEventDestroy_v2(self, event: Any) -> int:  # noqa: N802
        self.calls.append(("destroy event", event.value))
        return 0

    def cuEventRecordWithFlags(self, event: Any, stream: Any, flags: Any) -> int:  # noqa: N802
        return 0

    def cuEventElapsedTime(self, milliseconds: Any, start: Any, end: Any) -> int:  # noqa: N802
        milliseconds._obj.value = end.value - start.value
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:  # noqa: N802
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:  # noqa: N802
        return self._new(graph)

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:  # noqa: N802
        return self._new(executable)

    def cuGraphUpload(self, executable: Any, stream: Any) -> int:  # noqa: N802
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:  # noqa: N802
        self.calls.append(("destroy graph", graph.value))
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:  # noqa: N802
        self.calls.append(("destroy executable", executable.value))
        return 0

    def _new(self, handle: Any) -> int:
        self._handles += 1
        handle._obj.value = self._handles
        return 0
