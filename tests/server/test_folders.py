import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_triton.errors import ConfigurationError
from cosmos_triton.server.folders import interpreter_folder, is_plain, plain, work_folder


@pytest.mark.parametrize("name", ["my clone", "josé", "it's", "a;b", "$HOME", "(1)", "a:b"])
def test_a_name_that_the_stub_cannot_take_becomes_a_link(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    link = plain(folder, tmp_path / "links")
    assert is_plain(link)
    assert link.resolve() == folder
    assert plain(folder, tmp_path / "links") == link


def test_a_plain_name_is_left_alone(tmp_path: Path) -> None:
    assert plain(tmp_path, tmp_path / "links") == tmp_path
    assert not (tmp_path / "links").exists()


def test_two_folders_of_one_name_have_links_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / parent / "my clone" for parent in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert [plain(folder, tmp_path / "links").resolve() for folder in folders] == folders


@pytest.mark.parametrize("cache", ["my cache", "file"])
def test_a_cache_that_cannot_be_used_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
    folder = work_folder()
    assert tmp_path not in folder.parents
    assert is_plain(folder)
    assert os.access(folder, os.W_OK)


def test_where_no_folder_can_be_used_the_candidates_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosmos_triton.server.folders._is_ours", lambda folder: False)
    with pytest.raises(ConfigurationError, match=r"none of .*/tmp/cosmos-triton-.* set XDG_CACHE_HOME"):
        work_folder()


def test_stages_run_this_interpreter(tmp_path: Path) -> None:
    assert interpreter_folder(tmp_path) == Path(sys.executable).parent


def test_packages_in_a_folder_with_other_letters_are_found_by_links(tmp_path: Path) -> None:
    packages = tmp_path / "josé" / "packages"
    packages.mkdir(parents=True)
    (packages / "a_package_of_ours.py").write_text("VALUE = 7")
    folder = interpreter_folder(tmp_path / "work", [*sys.path, str(packages)])
    program = "import a_package_of_ours as p, numpy, sys; print(p.VALUE, all(map(str.isascii, sys.path)))"
    done = subprocess.run([folder / "python3", "-c", program], capture_output=True, text=True)
    assert done.stdout == "7 True\n", done.stderr
