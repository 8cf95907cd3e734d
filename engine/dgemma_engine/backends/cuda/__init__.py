"""A model on an NVIDIA GPU: fused Triton kernels and CUDA graphs."""
