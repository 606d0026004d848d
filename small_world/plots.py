"""Curves of training logs."""

import json
from collections.abc import Sequence
from pathlib import Path

_SMOOTHED = 10  # lines of a log

_LABELS = {
    "psnr": "PSNR, dB",
    "objects": "PSNR inside cars and ball, dB",
    "nats": "nats a token",
    "accuracy": "accuracy",
    "loss": "loss",
}


def curves(logs: Sequence[Path], path: Path) -> None:
    """One picture of all logs: a panel for each thing that is logged, minutes to the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = {log.name.removesuffix(".log.jsonl"): _read(log) for log in logs}
    shown = [key for key in _LABELS if any(key in entries[0] for entries in lines.values() if entries)]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 3.6), squeeze=False)
    for key, panel in zip(shown, panels[0], strict=True):
        for name, entries in lines.items():
            if entries and key in entries[0]:
                minutes = [entry["seconds"] / 60 for entry in entries]
                panel.plot(minutes, _smooth([entry[key] for entry in entries]), label=name)
        panel.set(xlabel="minutes of one H100", ylabel=_LABELS[key])
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _read(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _smooth(values: list[float]) -> list[float]:
    """The mean of each value and up to nine before it."""
    starts = (max(0, i - _SMOOTHED + 1) for i in range(len(values)))
    return [sum(values[start : i + 1]) / (i + 1 - start) for i, start in enumerate(starts)]
