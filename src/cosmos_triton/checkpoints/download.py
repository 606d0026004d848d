"""Which published files a set of models needs, and fetching them."""

import fnmatch
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_triton.architectures import AUTOREGRESSIVE
from cosmos_triton.checkpoints.hub import (
    DiskFull,
    HubFile,
    NotOnHub,
    described,
    fetch,
    is_whole,
    list_files,
    partial_path,
)
from cosmos_triton.checkpoints.releases import AUX_VARS, MEAN_STD, TEXT_GUARD, VIDEO_GUARD, WEIGHTS, Release

_SPARE = 64 << 20  # bytes left free on the disk
_SETTINGS = ("config.json",)
_ARCHIVES = (("encoder.jit", "decoder.jit"), ("autoencoder.jit",))
_TEXT_SETTINGS = (
    "config.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_TEXT_WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)
_NOT_NEEDED = ("*.md", ".gitattributes", "*.png", "*.jpg", "*.gif", "*.mp4")


@dataclass(frozen=True)
class Wanted:
    """What is needed of one repository. Entries are file name patterns."""

    directory: str
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()  # the first alternative that the hub has whole
    if_there: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One file to have, and where."""

    file: HubFile
    path: Path

    @property
    def partial(self) -> Path:
        """Where its unfinished download lies."""
        return partial_path(self.file, self.path)

    @property
    def missing_bytes(self) -> int:
        """Bytes still to come if the file at `path` is not there (it is not read)."""
        if self.path.is_file() and self.path.stat().st_size == self.file.size:
            return 0
        return self.file.size - (self.partial.stat().st_size if self.partial.is_file() else 0)


def wanted(models: Sequence[str], release: Release, without: Sequence[str] = ()) -> list[Wanted]:
    """The repositories that `models` (of MODELS) need, less the components `without` (of OPTIONAL)."""
    weights = (
        (WEIGHTS,),
        ("model.safetensors",),
        ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    )
    needs = [
        Wanted(release.autoregressive_directory(model), one_of=weights, if_there=_SETTINGS)
        for model in dict.fromkeys(models)
    ]
    needs.append(Wanted(release.discrete_tokenizer, one_of=_ARCHIVES, if_there=_SETTINGS))
    if "diffusion-decoder" not in without:
        archives = Wanted(release.continuous_tokenizer, (MEAN_STD,), _ARCHIVES, _SETTINGS)
        needs += [archives, Wanted(release.diffusion_decoder, (AUX_VARS,), weights, _SETTINGS)]
    prompts = any(AUTOREGRESSIVE[model].is_video2world for model in models)
    if prompts and "text-encoder" not in without:
        needs.append(Wanted(release.text_encoder, one_of=_TEXT_WEIGHTS, if_there=_TEXT_SETTINGS))
    if "guardrail" not in without:
        needs += [Wanted(release.guardrail, if_there=("*",)), Wanted(VIDEO_GUARD, if_there=("*",))]
        if prompts:
            needs.append(Wanted(TEXT_GUARD, if_there=("*",)))
    return needs


def plan(needs: Iterable[Wanted], release: Release, directory: Path) -> list[Item]:
    """Asks the hub what it has of `needs`, and that it lets us have it. Fetches nothing.

    Raises:
        DownloadError: the hub refuses, cannot be reached, or lacks a file.
    """
    items: list[Item] = []
    for need in needs:
        repository = release.repository(need.directory)
        for file in choose(need, repository, list_files(repository)):
            items.append(Item(described(file), directory / need.directory / file.name))
    return items


def choose(need: Wanted, repository: str, files: Sequence[HubFile]) -> list[HubFile]:
    """The files of a repository that fill a need."""
    names = [file.name for file in files]
    alternatives = [found for patterns in need.one_of if (found := _all_matching(patterns, names))]
    required = _all_matching(need.required, names)
    if (need.one_of and not alternatives) or (need.required and not required):
        lacking = [*need.required, *(" + ".join(patterns) for patterns in need.one_of[:1])]
        raise NotOnHub(f"{repository} has no {', '.join(lacking)}; it has {', '.join(names) or 'nothing'}")
    extra = [name for name in names if _matches(name, need.if_there) and not _matches(name, _NOT_NEEDED)]
    taken = {*required, *extra, *(alternatives[0] if alternatives else [])}
    if not taken:
        raise NotOnHub(f"{repository} has no files")
    return [file for file in files if file.name in taken]


def _all_matching(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Every name that matches a pattern, if each pattern has one."""
    found = [[name for name in names if fnmatch.fnmatchcase(name, pattern)] for pattern in patterns]
    return [name for matching in found for name in matching] if all(found) else []


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_space(items: Sequence[Item], directory: Path) -> None:
    """Raises DiskFull when what is still to come does not fit."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    needed = sum(item.missing_bytes for item in items)
    free = shutil.disk_usage(there).free
    if needed + _SPARE > free:
        raise DiskFull(
            f"{needed / 1e9:.1f} GB are still to come but {directory} has {free / 1e9:.1f} GB free"
        )


def download(items: Sequence[Item], directory: Path, on_file: Callable[[Item, bool], None]) -> None:
    """Fetches what is not there yet, after checking that it fits.

    Files that are there are verified against the hub's checksums, and fetched again where they differ.

    Args:
        on_file: called before each file with whether it has to be fetched.

    Raises:
        DownloadError: one of its kinds; files fetched so far stay, an unfinished one is kept for later.
    """
    check_space(items, directory)
    for item in items:
        missing = not is_whole(item.file, item.path)
        on_file(item, missing)
        if missing:
            fetch(item.file, item.path)
