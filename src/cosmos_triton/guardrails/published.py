"""Where the models of the full posture lie below a checkpoint folder, and how they are loaded.

Three repositories of the hub (named in `checkpoints/releases.py`): the word lists, content filter and face
detector of either release; SigLIP, the eyes of the content filter; the language model that judges prompts.
A repository is found as a folder of its name up to two folders deep, or in the hub's cache layout.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cosmos_triton.checkpoints import releases
from cosmos_triton.errors import CheckpointError, ConfigurationError, CosmosError

GUARDRAIL = tuple(release.repository(release.guardrail) for release in releases.RELEASES.values())
SIGLIP = (releases.VIDEO_GUARD,)
TEXT_GUARD = (releases.TEXT_GUARD,)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Published:
    """The published files below one checkpoint folder."""

    directory: Path

    def part(self, repositories: tuple[str, ...], *needed: str) -> Path:
        """The folder of the first of `repositories` that holds the files `needed`.

        Raises:
            CheckpointError: none does; the message says what to fetch.
        """
        folders = [folder for repository in repositories for folder in self._folders(repository)]
        for folder in folders:
            if all((folder / name).exists() for name in needed):
                return folder
        lacking = f" with {', '.join(needed)}" if needed else ""
        raise CheckpointError(
            f"the full guardrails need {' or '.join(repositories)}{lacking} below {self.directory}: "
            f"fetch it with `cosmos-triton download`, or choose the posture built-in"
        )

    def _folders(self, repository: str) -> Iterator[Path]:
        name = repository.rpartition("/")[2]
        cached = f"models--{repository.replace('/', '--')}/snapshots/*"
        for pattern in (name, f"*/{name}", f"*/*/{name}", cached, f"*/{cached}", f"*/*/{cached}"):
            yield from sorted(folder for folder in self.directory.glob(pattern) if folder.is_dir())


def library() -> Any:
    """The module of the package cosmos-guardrail.

    Raises:
        ConfigurationError: it, or something it needs, is not installed.
    """
    try:
        from cosmos_guardrail import cosmos_guardrail  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ConfigurationError(
            f"guardrail posture 'full' needs the package cosmos-guardrail ({error}): "
            "pip install 'cosmos-triton[guardrail]'"
        ) from error
    return cosmos_guardrail


def load(what: Path, build: Callable[[], Loaded]) -> Loaded:
    """What `build` makes of the files in `what`.

    Raises:
        CheckpointError: it raised; the message names the files.
    """
    try:
        return build()
    except CosmosError:
        raise
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(
            f"{what} is damaged or incomplete ({type(error).__name__}: {first_line}): "
            "delete it and fetch it again with `cosmos-triton download`"
        ) from error


@contextmanager
def reading_from(folder: Path, siglip: Path | None = None) -> Iterator[Any]:
    """The library, with the hub replaced by local folders while its objects are built.

    The library asks the hub for its files by repository name and takes weights that do not fit.
    Here nothing is asked of the network, and every weight has to be there.
    """
    module = library()
    local: dict[str, Any] = {"snapshot_download": lambda *_, **__: str(folder)}
    for name in ("AutoModelForCausalLM", "SiglipModel"):
        local[name] = _Strict(getattr(module, name))
    if siglip is not None:
        local["SigLIPEncoder"] = functools.partial(module.SigLIPEncoder, model_name=str(siglip))
    published = {name: getattr(module, name) for name in local}
    vars(module).update(local)
    try:
        yield module
    finally:
        vars(module).update(published)


@dataclass(frozen=True)
class _Strict:
    """A transformers class whose `from_pretrained` refuses missing weights instead of inventing them."""

    loader: Any

    def from_pretrained(self, name: str, **options: Any) -> Any:
        model, report = self.loader.from_pretrained(
            name, local_files_only=True, output_loading_info=True, **options
        )
        if lacking := sorted(report["missing_keys"]):
            raise CheckpointError(f"{name} lacks {len(lacking)} weights, the first is {lacking[0]}")
        return model
