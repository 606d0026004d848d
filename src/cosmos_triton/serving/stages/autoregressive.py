"""ar_sampler: requests ⇄ the engine.

A checkpoint folder may hold a base model, a Video2World model, or both; each has an engine of its
own. A request with text embeddings goes to the Video2World engine, one without to the base engine.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_triton.architectures import AutoregressiveArchitecture, Kind
from cosmos_triton.autoregressive.engine import Engine
from cosmos_triton.autoregressive.loading import load_engine
from cosmos_triton.autoregressive.parameters import SamplingParameters
from cosmos_triton.autoregressive.requests import Generation, GenerationRequest
from cosmos_triton.autoregressive.settings import EngineSettings
from cosmos_triton.checkpoints import catalog
from cosmos_triton.checkpoints.folder import CheckpointFolder, Component
from cosmos_triton.errors import Cancelled, InvalidInput, Unavailable
from cosmos_triton.geometry import latent_frames
from cosmos_triton.serving import report as reports
from cosmos_triton.serving.metrics import Metrics
from cosmos_triton.serving.observer import EngineMetrics
from cosmos_triton.serving.residency import residency
from cosmos_triton.serving.settings import StageSettings
from cosmos_triton.serving.values import from_bytes, integer, number, to_bytes

if TYPE_CHECKING:
    from cosmos_triton.serving.deferred import Reply

STAGE = "ar_sampler"
_MICROSECONDS = 1e-6
_REMEMBER_CANCELLED_S = 60.0  # longer than a request spends in the stages before this one


class Sampler:
    """The engines of one ar_sampler instance.

    Parameters: `base_model` and `video2world_model` name the model where the checkpoint folder holds
    several of a kind; `max_videos` and `max_queue` bound the videos that run and wait (0 videos: as
    many as fit the GPU); `window` is the engine's decoding window, 0 for automatic; `residency` says
    whether weights and cache stay on the device while there is no video.
    """

    def __init__(self, settings: StageSettings, metrics: Metrics) -> None:
        models = catalog.autoregressive_models(
            CheckpointFolder(settings.checkpoint_dir),
            {
                Kind.BASE: settings.text("base_model", ""),
                Kind.VIDEO2WORLD: settings.text("video2world_model", ""),
            },
        )
        self._engines = {
            kind: _start_engine(component, settings, metrics) for kind, component in models.items()
        }
        self._withdrawn: dict[str, float] = {}  # id → until when it is refused, monotonic seconds

    def submit(
        self, inputs: Mapping[str, NDArray[Any]], reply: "Reply", request_id: str, timeout_us: int
    ) -> None:
        """Hand one request to its engine; `reply` is answered when the video is done.

        Args:
            inputs: the model's tensors; `cancel_id` alone withdraws another request.
            reply: where the answer goes, exactly once.
            request_id: Triton's id of the request; the one `cancel_id` refers to.
            timeout_us: the request's own time limit in microseconds; 0 for none.
        """
        cancel_id = to_bytes(inputs, "cancel_id")
        if cancel_id is not None:
            cancelled = self._cancel(cancel_id.decode(errors="replace"))
            reply.result({"report": from_bytes(reports.dump({"cancelled": cancelled}))})
            return
        if self._withdrawn.pop(request_id, 0.0) > time.monotonic():
            raise Cancelled(f"request {request_id!r} was cancelled before it reached the sampler")
        if "context_tokens" not in inputs:
            raise InvalidInput("context_tokens is missing")
        text = inputs.get("text_embeddings")
        engine = self._engine(Kind.BASE if text is None else Kind.VIDEO2WORLD)
        parameters = _parameters(inputs, engine.architecture)
        frames = integer(inputs, "num_input_frames") or 9
        before = reports.parse(to_bytes(inputs, "report"))
        began = time.time()

        def done(outcome: Generation | BaseException) -> None:
            if isinstance(outcome, BaseException):
                reply.error(outcome)
                return
            section = _section(outcome, engine.architecture, parameters)
            report = reports.add_stage(before, STAGE, section, began, time.time())
            reply.result(
                {"tokens": outcome.tokens.astype(np.int32), "report": from_bytes(reports.dump(report))}
            )

        engine.submit(
            GenerationRequest(
                id=request_id,
                context_tokens=inputs["context_tokens"][: latent_frames(frames)],
                text_embeddings=None if text is None else text.copy(),
                parameters=parameters,
                deadline_s=timeout_us * _MICROSECONDS if timeout_us else None,
            ),
            done,
        )

    def _cancel(self, request_id: str) -> bool:
        """Withdraw a request; one that has not arrived yet is refused when it does, for a while."""
        found = [engine.cancel(request_id) for engine in self._engines.values()]
        if not any(found):
            now = time.monotonic()
            self._withdrawn = {key: until for key, until in self._withdrawn.items() if until > now}
            self._withdrawn[request_id] = now + _REMEMBER_CANCELLED_S
        return any(found)

    def close(self) -> None:
        """Stop the engines; videos that run are answered with an error."""
        for engine in self._engines.values():
            engine.stop()

    def _engine(self, kind: Kind) -> Engine:
        if kind not in self._engines:
            raise Unavailable(f"this server has no usable {kind} model; its log says why")
        return self._engines[kind]


def _start_engine(
    component: Component[AutoregressiveArchitecture], settings: StageSettings, metrics: Metrics
) -> Engine:
    engine = load_engine(
        component,
        torch.device(settings.device),
        residency(settings),
        EngineSettings(
            max_videos=settings.integer("max_videos", 8),
            max_queue=settings.integer("max_queue", 32),
            window=settings.integer("window", 0),
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
