"""CUDA on a GPU: memory, kernels, graphs, and the steps of a pipeline as kernels. pycuda is imported at first use."""
