"""A TensorRT plan outside Triton, to compare it with PyTorch. Needs a GPU and the tensorrt package."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from cosmos_triton.errors import ConfigurationError

_TORCH_TYPES = {"FLOAT": torch.float32, "INT32": torch.int32, "UINT8": torch.uint8}


class TensorRTRuntime:
    """One deserialized plan with static shapes.

    Args:
        plan: the file.
        device: index of the GPU.

    Raises:
        ConfigurationError: there is no GPU or no tensorrt package, or the plan does not load.
    """

    def __init__(self, plan: Path, device: int = 0) -> None:
        if not torch.cuda.is_available():
            raise ConfigurationError("no GPU is visible: a plan runs on the GPU it was built for")
        trt = _import_tensorrt()
        self._device = torch.device("cuda", device)
        with torch.cuda.device(self._device):
            self._logger = trt.Logger(trt.Logger.Severity.WARNING)
            runtime = trt.Runtime(self._logger)
            engine = runtime.deserialize_cuda_engine(plan.read_bytes())
            if engine is None:
                raise ConfigurationError(f"TensorRT {trt.__version__} cannot load {plan}")
            context = engine.create_execution_context()
        self._runtime, self._engine, self._context = runtime, engine, context
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self._inputs]

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays by input name -> arrays by output name."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream()
            tensors = {name: torch.from_numpy(inputs[name]).to(self._device) for name in self._inputs}
            tensors |= {name: self._empty(name) for name in self._outputs}
            for name, tensor in tensors.items():
                self._context.set_tensor_address(name, tensor.data_ptr())
            if not self._context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError("TensorRT did not run the plan; its log on stderr says why")
            stream.synchronize()
            return {name: tensors[name].cpu().numpy() for name in self._outputs}

    def _empty(self, name: str) -> torch.Tensor:
        engine = self._engine
        dtype = _TORCH_TYPES[engine.get_tensor_dtype(name).name]
        return torch.empty(tuple(engine.get_tensor_shape(name)), dtype=dtype, device=self._device)


def _import_tensorrt() -> Any:
    for name in ("tensorrt", "tensorrt_bindings"):  # the whole package, or its bindings over a system library
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigurationError("the tensorrt package is not installed")
