"""The tritonserver of this machine, and its Python backend put together.

The server comes from the container it runs in (`/opt/tritonserver`) or, where there is no Docker, from the
nvidia-pytriton wheel, which carries a real tritonserver with the Python backend. Its stub needs libpython
and the wheel's CUDA runtime on LD_LIBRARY_PATH.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.errors import ConfigurationError

CONTAINER_SERVER = Path("/opt/tritonserver/bin/tritonserver")


@dataclass(frozen=True)
class Installation:
    """A tritonserver on this machine."""

    binary: Path
    library_path: str
    backends: Path | None  # the Python backend's parts, where they must be put together first
    stub: Path | None


def find_installation() -> Installation:
    """The container's tritonserver, or the one in the nvidia-pytriton wheel.

    Raises:
        ConfigurationError: there is neither.
    """
    if CONTAINER_SERVER.is_file():
        return Installation(CONTAINER_SERVER, os.environ.get("LD_LIBRARY_PATH", ""), None, None)
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "no tritonserver here: run inside the Triton container, or pip install 'cosmos-triton[local]'"
        )
    package = Path(spec.origin).parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = package / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ConfigurationError(f"the nvidia-pytriton wheel has no stub for Python {version}")
    libraries = [
        package.parent / "nvidia_pytriton.libs",
        Path(sysconfig.get_config_var("LIBDIR")),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    return Installation(
        binary=package / "tritonserver" / "bin" / "tritonserver",
        library_path=":".join(str(entry) for entry in libraries if str(entry)),
        backends=package / "tritonserver" / "backends" / "python",
        stub=stub,
    )


def assemble_backends(installation: Installation, work: Path) -> Path:
    """Put the Python backend and the stub of this Python version into one folder, as Triton wants it.

    Args:
        work: where to make that folder, one for each place the parts come from.
    """
    if installation.backends is None or installation.stub is None:
        return CONTAINER_SERVER.parent.parent / "backends"
    directory = work / f"backends-{hashlib.sha256(os.fsencode(installation.stub)).hexdigest()[:12]}"
    python = directory / "python"
    python.mkdir(parents=True, exist_ok=True)
    parts = ("libtriton_python.so", "triton_python_backend_utils.py")
    for source in (*(installation.backends / name for name in parts), installation.stub):
        with tempfile.NamedTemporaryFile(dir=python, delete=False) as fresh:
            shutil.copy(source, fresh.name)
        os.replace(fresh.name, python / source.name)  # another server may be running from the old file
    return directory
