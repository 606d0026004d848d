"""What is committed under benchmarks/results, and the header that all of it has."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import precision, result
from benchmarks.result import HEADER, REPOSITORY

RESULTS = sorted((REPOSITORY / "benchmarks" / "results").iterdir())
DOCUMENTS = [path for path in RESULTS if path.suffix == ".json"]
NAME = re.compile(
    r"[a-z]+(-[a-z]+)*-(tiny|small|full|\d+B)-(cpu|h100|h200)"
    r"(-[a-z0-9]+)*\.(json|md|csv|png|jpg)"
)


def test_the_header_has_its_fields_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--output", "/a/b/c.json", "--video", "33x64x96"])
    header = result.describe("precision")
    assert tuple(header) == HEADER
    assert header["command"].endswith(" --output c.json --video 33x64x96")
    assert header["packages"]["torch"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("--checkpoint-dir /mnt/ck/4B --name x", "--checkpoint-dir 4B --name x"),
        ("--output=/a/b.json", "--output=b.json"),
        ("--checkpoint-dir checkpoints/tiny", "--checkpoint-dir checkpoints/tiny"),
        ("--url http://host:8002/a/b", "--url http://host:8002/a/b"),
    ],
)
def test_a_command_keeps_its_own_words(text: str, kept: str) -> None:
    assert result.without_folders(text) == kept


def test_a_result_is_a_table_a_file_and_a_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"network": "a", "seconds": 0.12345}, {"network": "longer", "GB": 3}]
    path = tmp_path / "new" / "result.json"
    result.finish(result.table(rows), {"results": rows}, path)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["network  seconds  GB", "a         0.1235", "longer             3"]
    assert json.loads(shown[-1]) == json.loads(path.read_text()) == {"results": rows}


def test_precision_ends_with_one_line_of_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"network": "video_encoder", "precision": "float16", "ids_differing": 0.0}
    monkeypatch.setattr(precision, "MEASURED", ("video_encoder",))
    monkeypatch.setattr(precision, "_checkpoint", lambda place: place)
    monkeypatch.setattr(precision, "_measure", lambda network, folder: iter([row]))
    monkeypatch.setattr(sys, "argv", ["precision"])
    precision.main()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.split() == list(row)
    assert json.loads(last)["results"] == [row]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_names_say_subject_size_machine(path: Path) -> None:
    assert NAME.fullmatch(path.name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_result_has_the_header_or_says_what_it_lacks(path: Path) -> None:
    document = json.loads(path.read_text())
    missing = [field for field in HEADER if field not in document]
    assert missing == document.get("not_recorded", [])
    assert document.get("command") or document["remarks"]


def test_every_program_is_in_the_docs() -> None:
    programs = {
        path.stem for path in (REPOSITORY / "benchmarks").glob("*.py") if "if __name__ ==" in path.read_text()
    }
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    assert programs == set(re.findall(r"^\| `python -m benchmarks\.(\w+)`", page, re.MULTILINE))
