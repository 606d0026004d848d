"""Cosmos autoregressive world foundation models, served by NVIDIA Triton."""

__version__ = "0.1.0"
