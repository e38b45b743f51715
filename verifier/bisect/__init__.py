"""Which nodes of an ONNX graph are responsible when two runs of it disagree.

Every question is about a window of the graph: some consecutive nodes, fed with what the *reference* has at the window's
inputs, and compared at its outputs. Nothing that goes wrong before a window reaches it, so faults are found one by one,
however many there are, and errors don't pile up. What answers is a *runner*: ONNX Runtime in this process, or a command
(`runners.runner_of`), which is how TensorRT of any version takes part from an environment of its own.
"""
