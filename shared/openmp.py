"""How the threads of libraries on the CPU wait for one another, and how many there are.

*PyTorch's operators.* By default a thread of libgomp that is done first spins for milliseconds before it sleeps. Where
another program has the processor that its neighbor needs, it spins away the time in which the neighbor could run in its
place: YOLOX with two threads took 70 ms alone, and 850 ms beside one busy process. Sleeping at once took 104 ms there,
and as much alone: waking up takes longer than the work between two waits. Spinning for some 50 us costs neither more
than a sixth. The number of threads stays PyTorch's own, whatever else runs: results differ in their last bits with it.

*NumPy's matrix products.* Those here take microseconds: the poses of points. The threads of the OpenBLAS of NumPy 1.26,
one a processor, go on looking for work after each, and give way to others thousands of times meanwhile: a product every
10 ms took 3.2 ms of two processors, and 0.4 ms with one thread, which gives the same bits.

*OpenCV's images.* It takes every processor, also where a backend was told how many it may have.
"""

from __future__ import annotations

import os
import platform

# Rounds of libgomp's loop, 62 ns each on an AMD EPYC: its pause instruction, which takes less on other processors.
_SPINS = 800
_CHOSEN_BY_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Let threads spin briefly, unless the environment says how they wait. Call it before PyTorch is imported."""
    if platform.machine() == "x86_64" and not any(name in os.environ for name in _CHOSEN_BY_THE_USER):
        os.environ["GOMP_SPINCOUNT"] = str(_SPINS)


def one_thread_for_matrices() -> None:
    """Give NumPy one thread, unless the environment says how many. Call it before NumPy is imported.

    On other machines than x86-64 PyTorch multiplies by OpenBLAS, too, and needs its threads.
    """
    if platform.machine() == "x86_64":
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def threads_for_images(count: int | None) -> None:
    """Give OpenCV so many threads, unless the environment says how many. Call it before OpenCV is imported.

    Args:
        count: None leaves the choice to OpenCV.
    """
    if count is not None:
        os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(count))
