"""Kernels in the Triton language (the compiler, not the server) for NVIDIA GPUs.

Each module has one kernel and the function that launches it. All sum in an order that depends on
neither the number of rows nor their order in the call, so a sequence decodes to the same tokens alone,
in a batch, and in windows, in bfloat16 too.
"""
