"""Run the tests of the full guardrails and record the result: `make test-guardrails`.

    python -m evaluation.full_posture tests/guardrails/full_posture.json

The exit status is pytest's. The record is written whatever the outcome.
"""

import json
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.result import commit

_PACKAGES = ("cosmos-guardrail", "torch", "torchvision", "transformers")
_TESTS = ("tests/guardrails", "-m", "full_guardrails and not gpu")


def main(record: Path) -> int:
    """Run the tests; returns pytest's exit status."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", *_TESTS, f"--junitxml={results}"]
        status = subprocess.run(command, check=False).returncode
        record.write_text(json.dumps(_record(results), indent=1) + "\n", "utf-8")
    return status


def _record(results: Path) -> dict[str, Any]:
    """What pytest's report says, and of what."""
    (suite,) = ElementTree.parse(results).getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    return {
        "command": f"pytest {_TESTS[0]} {_TESTS[1]} '{_TESTS[2]}'",
        "commit": commit(),
        "date": suite.attrib["timestamp"],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        **counts,
        "seconds": round(float(suite.attrib["time"])),
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
