"""The pages are true: links lead somewhere, commands parse, words are in use, no machine shows through."""

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from cosmos_client._arguments import build_parser
from cosmos_triton.cli import parser as operator_parser

REPOSITORY = Path(__file__).parents[1]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]
LINKS = [
    pytest.param(page, link, id=f"{page.name}: {link}")
    for page in PAGES
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
]
COMMANDS = [
    pytest.param(program, words.split(" # ")[0].strip(), id=f"{page.name}: {words[:60]}")
    for page in PAGES
    for program, words in re.findall(
        r"^(?: {4}|(?=\.venv/bin/))(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(cosmos-triton|cosmos-client) (\S.*)$",
        page.read_text().replace("\\\n", ""),
        re.MULTILINE,
    )
    if not re.search(r"[…\[|]", words)  # a form to fill in
]


def _unused(arguments: argparse.Namespace) -> int:
    raise AssertionError("only parsed")


PARSERS = {"cosmos-triton": operator_parser, "cosmos-client": lambda: build_parser(_unused, _unused)}
MACHINE = re.compile(r"/root/|/work/|/home/|/dev/shm/(?!triton)")


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page: Path, link: str) -> None:
    assert (page.parent / link).exists()


@pytest.mark.parametrize(("program", "words"), COMMANDS)
def test_commands_parse(program: str, words: str) -> None:
    PARSERS[program]().parse_args(shlex.split(words))


def test_words_of_the_glossary_are_in_use() -> None:
    page = REPOSITORY / "docs" / "glossary.md"
    words = [word.strip("` ") for word in re.findall(r"^\|([^|]+)\|", page.read_text(), re.MULTILINE)]
    used = "\n".join(
        path.read_text()
        for path in (*REPOSITORY.glob("src/**/*.py"), *REPOSITORY.glob("docs/*.md"))
        if path != page
    ).casefold()
    named = [word for word in words if word != "word" and set(word) != {"-"}]
    assert len(named) > 40
    assert [word for word in named if word.casefold() not in used] == []


def test_no_committed_text_shows_the_machine_it_was_made_on() -> None:
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "*.md", "*.json", "*.csv", "*.pbtxt"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed
    assert [name for name in listed if MACHINE.search((REPOSITORY / name).read_text())] == []
