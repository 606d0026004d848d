"""ar_sampler: requests ⇄ the engine.

A checkpoint folder may hold a base model, a Video2World model, or both; each has an engine of its
own. A request with a text context goes to the Video2World engine, one without to the base engine.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from cosmos_triton.architectures import AutoregressiveArchitecture, Kind
from cosmos_triton.autoregressive import (
    Engine,
    EngineSettings,
    Generation,
    GenerationRequest,
    SamplingParameters,
    load_engine,
)
from cosmos_triton.checkpoints import CheckpointFolder, Component, catalog
from cosmos_triton.errors import Cancelled, InvalidInput, Unavailable
from cosmos_triton.geometry import ALLOWED_INPUT_FRAMES, CONTEXT_FRAMES, latent_frames
from cosmos_triton.serving import report as reports
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.observer import EngineMetrics
from cosmos_triton.serving.parameters import SamplerParameters
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.values import from_bytes, integer, number, to_bytes
from cosmos_triton.serving.withdrawn import Withdrawn, check_cancel_id, check_request_id

if TYPE_CHECKING:
    from cosmos_triton.serving.deferred import Reply

_MICROSECONDS = 1e-6


class Sampler:
    """The engines of one ar_sampler instance.

    Args:
        name: of the stage, for reports.
        engines: one, or one of each kind; they run.
    """

    def __init__(self, name: str, engines: Mapping[Kind, Engine]) -> None:
        self._name = name
        self._engines = engines
        self._withdrawn = Withdrawn()

    @classmethod
    def start(cls, settings: StageSettings[SamplerParameters], metrics: Metrics) -> "Sampler":
        """Engines for all models of the checkpoint folder."""
        chosen = {
            Kind.BASE: settings.parameters.base_model,
            Kind.VIDEO2WORLD: settings.parameters.video2world_model,
        }
        models = catalog.autoregressive_models(CheckpointFolder(settings.checkpoint_dir), chosen)
        engines = {kind: _start_engine(component, settings, metrics) for kind, component in models.items()}
        return cls(settings.model, engines)

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], reply: "Reply", request_id: str, timeout_us: int
    ) -> None:
        """Hand one request to its engine, or, where it carries `cancel_id`, withdraw the one of that id.

        Args:
            inputs: the model's tensors; `cancel_id` comes alone.
            reply: where the answer goes, exactly once.
            request_id: Triton's id of the request; the one `cancel_id` refers to.
            timeout_us: the request's own time limit in microseconds; 0 for none.
        """
        cancel_id = to_bytes(inputs, "cancel_id")
        if cancel_id is None:
            self._generate(inputs, reply, request_id, timeout_us)
        else:
            cancelled = self._cancel(cancel_id.decode(errors="replace"))
            reply.result({"report": from_bytes(reports.dump({"cancelled": cancelled}))})

    @property
    def able(self) -> bool:
        """Whether every engine runs."""
        return all(engine.alive for engine in self._engines.values())

    def close(self) -> None:
        """Stop the engines; videos that run are answered with an error."""
        for engine in self._engines.values():
            engine.stop()

    def _generate(
        self, inputs: Mapping[str, NDArray[Any]], reply: "Reply", request_id: str, timeout_us: int
    ) -> None:
        check_request_id(request_id)
        if self._withdrawn.take(request_id):
            raise Cancelled(f"request {request_id!r} was cancelled before it reached the sampler")
        before = reports.parse(to_bytes(inputs, "report"))
        engine = self._engine(Kind.VIDEO2WORLD if "text_embeddings" in inputs else Kind.BASE)
        request = _request(inputs, engine.architecture, request_id, timeout_us)
        began = time.time()

        def done(outcome: Generation | BaseException) -> None:
            if isinstance(outcome, BaseException):
                reply.error(outcome)
                return
            section = _section(outcome, engine.architecture, request.parameters)
            report = reports.add_stage(before, self._name, section, began, time.time())
            reply.result({"tokens": outcome.tokens, "report": from_bytes(reports.dump(report))})

        engine.submit(request, done)

    def _cancel(self, request_id: str) -> bool:
        """Withdraw a request; one that has not arrived yet is refused when it does, for a while."""
        check_cancel_id(request_id)
        found = [engine.cancel(request_id) for engine in self._engines.values()]
        if not any(found):
            self._withdrawn.add(request_id)
        return any(found)

    def _engine(self, kind: Kind) -> Engine:
        if kind not in self._engines:
            raise Unavailable(f"this server has no usable {kind} model; its log says why")
        return self._engines[kind]


def _request(
    inputs: Mapping[str, NDArray[Any]],
    architecture: AutoregressiveArchitecture,
    request_id: str,
    timeout_us: int,
) -> GenerationRequest:
    if "context_tokens" not in inputs:
        raise InvalidInput("context_tokens is missing")
    text = inputs.get("text_embeddings")
    return GenerationRequest(
        id=request_id,
        context_tokens=inputs["context_tokens"][: latent_frames(_input_frames(inputs))],
        text_embeddings=None if text is None else text.copy(),
        parameters=_parameters(inputs, architecture),
        deadline_s=timeout_us * _MICROSECONDS if timeout_us else None,
    )


def _input_frames(inputs: Mapping[str, NDArray[Any]]) -> int:
    """How many frames of the context are the user's; all that the video encoder sees if not said."""
    frames = integer(inputs, "num_input_frames")
    if frames is None:
        return CONTEXT_FRAMES
    if frames not in ALLOWED_INPUT_FRAMES:
        allowed = " or ".join(map(str, ALLOWED_INPUT_FRAMES))
        raise InvalidInput(f"num_input_frames is {frames}, must be {allowed}")
    return frames


def _start_engine(
    component: Component[AutoregressiveArchitecture],
    settings: StageSettings[SamplerParameters],
    metrics: Metrics,
) -> Engine:
    engine = load_engine(
        component,
        torch.device(settings.device),
        residency(settings),
        EngineSettings(
            max_videos=settings.parameters.max_videos,
            max_queue=settings.parameters.max_queue,
            window=settings.parameters.window,
        ),
        EngineMetrics(metrics, component.architecture.name),
    )
    engine.start()
    return engine


def _parameters(
    inputs: Mapping[str, NDArray[Any]], architecture: AutoregressiveArchitecture
) -> SamplingParameters:
    temperature = number(inputs, "temperature")
    top_p = number(inputs, "top_p")
    return SamplingParameters(
        seed=integer(inputs, "seed") or 0,
        temperature=architecture.recommended_temperature if temperature is None else temperature,
        top_p=architecture.recommended_top_p if top_p is None else top_p,
    )


def _section(
    generation: Generation, architecture: AutoregressiveArchitecture, parameters: SamplingParameters
) -> reports.Report:
    return {
        "model": architecture.name,
        "seed": parameters.seed,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "autoregressive": {
            "tokens": generation.tokens_generated,
            "passes": generation.passes,
            "queue_seconds": round(generation.queue_seconds, 4),
            "prefill_seconds": round(generation.prefill_seconds, 4),
            "decode_seconds": round(generation.decode_seconds, 4),
        },
    }
