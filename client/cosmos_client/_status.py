"""What a server has loaded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cosmos_client._contract import ENSEMBLES


@dataclass(frozen=True)
class ModelStatus:
    """One model of the server: an ensemble, which takes requests, or a stage of one."""

    name: str
    ready: bool
    detail: str  # why it is not ready, as far as the server says; else empty

    @property
    def is_ensemble(self) -> bool:
        """Whether this is one of the public ensembles."""
        return self.name in ENSEMBLES


@dataclass(frozen=True)
class ServerStatus:
    """What a server has loaded.

    Triton keeps calling a stage ready after its process has died, so `ready` promises no answer.
    """

    url: str
    server: str  # e.g. "triton 2.51.0"
    models: tuple[ModelStatus, ...]  # ensembles first, then the stages by name

    @property
    def ready(self) -> bool:
        """Whether at least one ensemble takes requests."""
        return any(model.ready for model in self.models if model.is_ensemble)


def from_index(index: Iterable[Mapping[str, str]]) -> tuple[ModelStatus, ...]:
    """Models from Triton's repository index: mappings with `name`, `state`, `reason`.

    A model with several versions is ready if one of them is. Ensembles that the repository lacks
    are listed as absent.
    """
    models = {name: ModelStatus(name, False, "not in the server's repository") for name in ENSEMBLES}
    stages: dict[str, ModelStatus] = {}
    for entry in index:
        name, ready = entry["name"], entry.get("state") == "READY"
        known = models if name in ENSEMBLES else stages
        if name in known and known[name].ready:
            continue
        detail = "" if ready else entry.get("reason") or entry.get("state") or "not loaded"
        known[name] = ModelStatus(name, ready, detail)
    return (*models.values(), *(stages[name] for name in sorted(stages)))
