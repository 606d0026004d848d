"""A room is entered through its face: what others import of it stands in its `__init__`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "src" / "cosmos_triton"
ROOMS = sorted(folder.name for folder in LIBRARY.iterdir() if (folder / "__init__.py").is_file())
SOURCES = ("src", "export", "client", "benchmarks", "evaluation", "small_world", "model_repository")
# The command line is put together from the rooms' commands; the kernels' benchmarks time their insides;
# training trains the plain operations, and writes tensors under the names that loaders read.
ALLOWED = {
    "src/cosmos_triton/cli.py": ("commands",),
    "benchmarks/drafts.py": ("plain", "plain_steps"),
    "benchmarks/engine.py": ("plain",),
    "benchmarks/engine_kernels.py": ("fused", "plain", "kernels", "nucleus"),
    "benchmarks/engine_settings.py": ("kernels",),
    "small_world/sampler.py": ("plain",),
    "small_world/weights.py": ("text_encoder", "video_autoencoder"),
}


def imported(path: Path) -> Iterator[list[str]]:
    """Modules of the library that a file imports, as lists of names: room, module, …"""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = (name.name.split(".") for name in node.names)
            yield from (rest for first, *rest in names if first == "cosmos_triton")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cosmos_triton"):
            module = (node.module or "").split(".")[1:]
            for name in node.names:
                below = LIBRARY.joinpath(*module, name.name)
                is_module = below.is_dir() or below.with_suffix(".py").is_file()
                yield [*module, name.name] if is_module else module


def handed_out(room: str) -> set[str]:
    """Modules that a face hands out whole."""
    face = LIBRARY / room / "__init__.pyi"
    body = ast.parse(face.read_text()).body if face.is_file() else []
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module is None]
    return {name.name for node in imports for name in node.names}


def entries_past_the_face() -> Iterator[str]:
    for path in sorted(file for source in SOURCES for file in (REPOSITORY / source).rglob("*.py")):
        name = path.relative_to(REPOSITORY).as_posix()
        for room, *inside in (modules for modules in imported(path) if modules and modules[0] in ROOMS):
            own = name.startswith(f"src/cosmos_triton/{room}/")
            if inside and not own and inside[0] not in {*ALLOWED.get(name, ()), *handed_out(room)}:
                yield f"{name} enters {'.'.join([room, *inside])}"


def test_rooms_are_entered_through_their_faces() -> None:
    assert list(entries_past_the_face()) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is(room: str) -> None:
    assert ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text()))
