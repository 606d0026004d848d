"""What the published TensorRT bindings offer, read out without TensorRT or a GPU.

    python tests/support/tensorrt_surface.py DIR > tests/data/tensorrt/VERSION.json

DIR holds an unpacked wheel (`pip download --no-deps tensorrt-cu12-bindings==VERSION`). The bindings
import a dozen C functions of the TensorRT libraries; libraries that define those names and nothing
else let them be imported, and their classes listed. Prints one JSON document: class → attributes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
_LIST = """
import inspect, json, sys
import tensorrt_bindings as trt
classes = {name: value for name, value in vars(trt).items() if inspect.isclass(value)}
surface = {name: sorted(a for a in dir(value) if not a.startswith("_")) for name, value in classes.items()}
for name, value in classes.items():
    for inner, nested in vars(value).items():
        if inspect.isclass(nested) and not inner.startswith("_"):
            surface[f"{name}.{inner}"] = sorted(a for a in dir(nested) if not a.startswith("_"))
json.dump({"version": trt.__version__, "classes": surface}, sys.stdout, sort_keys=True)
"""


def read_surface(wheel: Path) -> dict[str, object]:
    """Version and classes of the bindings in an unpacked wheel."""
    (binary,) = wheel.glob("tensorrt_bindings/tensorrt.so")
    with tempfile.TemporaryDirectory() as folder:
        _write_stubs(binary, Path(folder))
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "PYTHONPATH": str(wheel)}
        listing = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _LIST],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    document: dict[str, object] = json.loads(listing.stdout)
    return document


def _write_stubs(binary: Path, folder: Path) -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    wanted = sorted({name for name in re.findall(r" U (\w+)", symbols) if _is_tensorrt(name)})
    source = folder / "stub.c"
    source.write_text("".join(f"long {name}() {{ return 0; }}\n" for name in wanted))
    needed = subprocess.run(["readelf", "-d", str(binary)], capture_output=True, text=True, check=True).stdout
    for soname in re.findall(r"\[(lib\w+\.so\.\d+)\]", needed):
        if soname.split(".")[0] in _LIBRARIES:
            command = [
                "gcc",
                "-shared",
                "-fPIC",
                f"-Wl,-soname,{soname}",
                "-o",
                str(folder / soname),
                str(source),
            ]
            subprocess.run(command, check=True)


def _is_tensorrt(symbol: str) -> bool:
    return bool(
        re.match(
            r"(create(Infer|Nv)|getInfer|getNv|getPlugin|getBuilderPluginRegistry|getLogger|initLibNv|initNv)",
            symbol,
        )
    )


if __name__ == "__main__":
    json.dump(read_surface(Path(sys.argv[1])), sys.stdout, sort_keys=True)
