"""How the threads of an operator of PyTorch wait for one another on the CPU.

By default a thread of libgomp that is done first spins for milliseconds before it sleeps. Where another program has the
processor that its neighbor needs, it spins away the time in which the neighbor could run in its place: YOLOX with two
threads took 70 ms alone, and 850 ms beside one busy process. Sleeping at once took 104 ms there, and as much alone:
waking up takes longer than the work between two waits. Spinning for some 50 us costs neither more than a sixth.

The number of threads stays PyTorch's own, whatever else runs: results differ in their last bits with it.
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
