"""Exceptions → what the client is told.

A failure raised on purpose (`CosmosError`) is answered with its own sentence and code. Anything
else is ours: the log gets the trace, the client a short INTERNAL without paths.
"""

import logging
import sys
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

from cosmos_triton.errors import Cancelled, CosmosError, InvalidInput, Unavailable

_log = logging.getLogger(__name__)


def error_response(error: BaseException, stage: str) -> Any:
    """The response that reports `error` from `stage`."""
    return pb_utils.InferenceResponse(output_tensors=[], error=triton_error(error, stage))


def triton_error(error: BaseException, stage: str) -> Any:
    """The TritonError for `error`; unexpected ones are logged with their trace."""
    match error:
        case InvalidInput():
            code = pb_utils.TritonError.INVALID_ARG
        case Unavailable():
            code = pb_utils.TritonError.UNAVAILABLE
        case Cancelled():
            code = pb_utils.TritonError.CANCELLED
        case _ if is_lasting(error):
            _log.error("%s cannot go on", stage, exc_info=error)
            reason = f"{stage} lost its GPU ({type(error).__name__}) and starts again; send the request again"
            return pb_utils.TritonError(reason, pb_utils.TritonError.UNAVAILABLE)
        case _:
            _log.error("%s failed", stage, exc_info=error)
            code = pb_utils.TritonError.INTERNAL
    if isinstance(error, CosmosError):
        return pb_utils.TritonError(str(error), code)
    return pb_utils.TritonError(f"{stage} failed; the server's log has the details", code)


def is_lasting(error: BaseException) -> bool:
    """Whether no later request can succeed in this process: its CUDA context is broken for good.

    PyTorch's error for a call that CUDA refused; running out of memory is none of them.
    """
    torch = sys.modules.get("torch")  # where it was never imported, no such error can come
    kind = getattr(torch, "AcceleratorError", None) if torch is not None else None
    return kind is not None and isinstance(error, kind)
