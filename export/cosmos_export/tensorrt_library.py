"""What differs between TensorRT 10.13+, TensorRT 11.x and TensorRT for RTX.

TensorRT builds for the GPU it runs on. TensorRT for RTX builds ahead of time, on any machine, for
the compute capabilities it is told; Triton's backend cannot load its plans, so they serve to prove
that graphs compile. Precision is the graph's own in all of them: networks are strongly typed.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cosmos_triton.errors import ConfigurationError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"
LIBRARIES = (TENSORRT, TENSORRT_RTX)

_PACKAGES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs"}
_OLDEST = {TENSORRT: (10, 13), TENSORRT_RTX: (1, 7)}


@dataclass(frozen=True)
class TensorRTLibrary:
    """One of the libraries, imported.

    Args:
        name: of LIBRARIES.
        version: e.g. `10.13.3.9`.
        trt: the module.
    """

    name: str
    version: str
    trt: Any

    @property
    def builds_ahead_of_time(self) -> bool:
        """Whether plans are built for named compute capabilities instead of the GPU at hand."""
        return self.name == TENSORRT_RTX

    def create_network(self, builder: Any) -> Any:
        """An empty, strongly typed network."""
        flag = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # its bit differs between versions
        return builder.create_network(1 << int(flag))

    def create_config(self, builder: Any, capabilities: Sequence[str], workspace_gib: float | None) -> Any:
        """How to build.

        Args:
            builder: of this library.
            capabilities: such as `8.9`; only a library that builds ahead of time takes any.
            workspace_gib: limit of scratch memory; None leaves it to the library.

        Raises:
            ConfigurationError: a capability is not one the library builds for.
        """
        config = builder.create_builder_config()
        if workspace_gib is not None:
            pool = self.trt.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, int(workspace_gib * (1 << 30)))
        if capabilities and not self.builds_ahead_of_time:
            raise ConfigurationError(
                f"{self.name} builds for the GPU at hand, not for compute capability {capabilities[0]}"
            )
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for place, capability in enumerate(capabilities):
                config.set_compute_capability(self._capability(capability), place)
        return config

    def _capability(self, capability: str) -> Any:
        name = f"SM{capability.replace('.', '')}"
        known = self.trt.ComputeCapability
        if not hasattr(known, name):
            named = [value for value in dir(known) if value.startswith("SM")]
            raise ConfigurationError(
                f"{self.name} {self.version} does not build for compute capability {capability}; "
                f"it knows {', '.join(named)}"
            )
        return getattr(known, name)


def load_library(name: str) -> TensorRTLibrary:
    """Import a library.

    Raises:
        ConfigurationError: it is not installed, or too old.
    """
    for module in (name, f"{name}_bindings"):
        try:
            trt = importlib.import_module(module)
        except ImportError:
            continue
        version = str(trt.__version__)
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST[name]:
            oldest = ".".join(map(str, _OLDEST[name]))
            raise ConfigurationError(f"{name} {version} is too old: {oldest} or later is needed")
        return TensorRTLibrary(name, version, trt)
    raise ConfigurationError(
        f"{name} is not installed: plans are built in the container of Dockerfile.triton, "
        f"or after `pip install {_PACKAGES[name]}`"
    )
