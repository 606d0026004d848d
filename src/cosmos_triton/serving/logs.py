"""Python's logging → Triton's log, so that one stream tells the whole story."""

import logging

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonHandler(logging.Handler):
    """Writes records through Triton's logger with the model's name in front."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record at Triton's nearest level."""
        logger = pb_utils.Logger
        text = f"{self._model}: {self.format(record)}"
        if record.levelno >= logging.ERROR:
            logger.log_error(text)
        elif record.levelno >= logging.WARNING:
            logger.log_warn(text)
        elif record.levelno >= logging.INFO:
            logger.log_info(text)
        else:
            logger.log_verbose(text)


def log_to_triton(model: str) -> None:
    """Send this process's `cosmos_triton` log records to Triton's log."""
    root = logging.getLogger("cosmos_triton")
    root.handlers = [TritonHandler(model)]
    root.setLevel(logging.INFO)
    root.propagate = False
