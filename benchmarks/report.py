"""A result as tables for people (console, Markdown), as CSV and as plots."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosmos_triton.pipeline import STAGES
from cosmos_triton.tables import text_table

_ORDER = {stage: place for place, stage in enumerate(STAGES)}
_WAITING = "waiting"
Rows = list[list[str]]


def in_order(stages: Mapping[str, Any]) -> list[str]:
    """Stage names in the order of the pipeline, unknown ones last."""
    return sorted(stages, key=lambda stage: (_ORDER.get(stage, len(_ORDER)), stage))


def latency_rows(result: Mapping[str, Any]) -> Rows:
    """Header and one row per concurrency."""
    rows = [["concurrency", "videos", "videos/min", "mean s", "p50 s", "p90 s", "p99 s", "× one alone"]]
    alone = result["levels"][0]["latency_s"]["mean_s"]
    for level in result["levels"]:
        latency = level["latency_s"]
        rows.append(
            [
                str(level["concurrency"]),
                str(level["requests"]),
                f"{level['videos_per_minute']:.3g}",
                *(f"{latency[key]:.2f}" for key in ("mean_s", "p50_s", "p90_s", "p99_s")),
                f"{latency['mean_s'] / alone:.2f}",
            ]
        )
    return rows


def stage_rows(result: Mapping[str, Any]) -> Rows:
    """Header and one row per stage: seconds a video at each concurrency."""
    levels = result["levels"]
    rows = [["stage", *(f"{level['concurrency']} in flight" for level in levels)]]
    for stage in in_order(levels[0]["stage_s"]):
        rows.append([stage, *(f"{level['stage_s'].get(stage, 0):.3f}" for level in levels)])
    rows.append(["stages together", *(f"{sum(level['stage_s'].values()):.3f}" for level in levels)])
    rows.append(["queues, transfers", *(f"{level['outside_stages_s']:.3f}" for level in levels)])
    return rows


def memory_rows(result: Mapping[str, Any]) -> Rows:
    """Header and one row per process: peaks in GB."""
    memory = result["memory"]
    rows = [["process", "host GB", "GPU GB"]]
    gpu = memory["gpu_by_stage_gb"]
    for stage in in_order({**memory["host_by_stage_gb"], **gpu}):
        own = gpu.get(stage)
        rows.append(
            [stage, f"{memory['host_by_stage_gb'].get(stage, 0):.2f}", "–" if own is None else f"{own:.2f}"]
        )
    whole = memory["gpu_gb"]
    rows.append(["peak of the sum", f"{memory['host_gb']:.2f}", "–" if whole is None else f"{whole:.2f}"])
    return rows


def markdown_table(rows: Rows) -> str:
    """The same for Markdown."""
    header, *body = rows
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


def console(result: Mapping[str, Any]) -> str:
    """All tables, one after the other."""
    return "\n\n".join(
        text_table(rows, right=range(1, len(rows[0])))
        for rows in (latency_rows(result), stage_rows(result), memory_rows(result))
    )


def as_csv(result: Mapping[str, Any]) -> str:
    """One row per concurrency with every number of it."""
    stages = in_order(result["levels"][0]["stage_s"])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    quantiles = list(result["levels"][0]["latency_s"])
    columns = [*quantiles, *(f"{stage}_s" for stage in stages), "outside_stages_s"]
    writer.writerow(["concurrency", "requests", "videos_per_minute", *columns])
    for level in result["levels"]:
        writer.writerow(
            [level["concurrency"], level["requests"], level["videos_per_minute"]]
            + [level["latency_s"][quantile] for quantile in quantiles]
            + [level["stage_s"].get(stage, 0) for stage in stages]
            + [level["outside_stages_s"]]
        )
    return table.getvalue()


def markdown(result: Mapping[str, Any], plots: Sequence[Path]) -> str:
    """The report that is committed beside the result."""
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory']}, driver {gpu['driver']})" for gpu in result["gpus"])
    settings = ", ".join(f"{key}={value}" for key, value in result["environment"].items()) or "none"
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    facts = [
        ["what", "value"],
        ["ensemble, profile", f"`{result['ensemble']}`, `{result['profile']}`"],
        ["models", ", ".join(result["models"])],
        ["machine", f"{gpus or 'no GPU'}; {result['cpu']['name']}, {result['cpu']['cores']} cores"],
        ["versions", f"Python {result['python']}, {packages}"],
        ["commit, date", f"{result['commit']}, {result['date']}"],
        ["settings", settings],
        ["command", f"`{result['command']}`"],
        ["ready after", f"{result['ready_s']:.1f} s" if result["ready_s"] is not None else "was running"],
    ]
    one = result["levels"][0]
    share = 100 * one["outside_stages_s"] / one["latency_s"]["mean_s"]
    parts = [
        f"# {result['ensemble']}, profile {result['profile']}",
        markdown_table(facts),
        "## Latency and throughput\n\nSeconds from request to video, by the client's clock (perf_analyzer).",
        markdown_table(latency_rows(result)),
        "## Stages\n\nMean seconds a video spends in each stage, queueing left out.\nAt concurrency "
        f"{one['concurrency']} what is outside the stages is {share:.1f} % of the whole.",
        markdown_table(stage_rows(result)),
        "## Memory\n\nPeaks over the whole run, sampled "
        f"{result['memory']['samples']} times. A stage's peak is its own; the last is the sum's.",
        markdown_table(memory_rows(result)),
        *(f"![{plot.stem}]({plot.name})" for plot in plots),
    ]
    return "\n\n".join(parts) + "\n"


def load_plotting() -> Any:
    """Matplotlib's pyplot, drawing to files. Raises ImportError where it is not installed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(result: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Latency against concurrency, stacked stage times, memory over time: three PNG files."""
    pyplot = load_plotting()
    drawings = {"latency": _draw_latency, "stages": _draw_stages, "memory": _draw_memory}
    paths = []
    for kind, draw in drawings.items():
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        draw(axes, result)
        paths.append(folder / f"{name}-{kind}.png")
        figure.savefig(paths[-1], dpi=110)
        pyplot.close(figure)
    return paths


def _draw_latency(axes: Any, result: Mapping[str, Any]) -> None:
    levels = result["levels"]
    concurrency = [level["concurrency"] for level in levels]
    for quantile in ("p50_s", "p90_s", "p99_s"):
        values = [level["latency_s"][quantile] for level in levels]
        axes.plot(concurrency, values, marker="o", label=quantile.removesuffix("_s"))
    axes.set(xlabel="videos in flight", ylabel="seconds a video", title=f"{result['ensemble']}: latency")
    axes.set_xticks(concurrency)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    rate = axes.twinx()
    rate.plot(
        concurrency, [level["videos_per_minute"] for level in levels], "k--", marker="s", label="videos/min"
    )
    rate.set(ylabel="videos per minute")
    rate.set_ylim(bottom=0)
    handles = [*axes.get_legend_handles_labels()[0], *rate.get_legend_handles_labels()[0]]
    axes.legend(handles=handles)


def _draw_stages(axes: Any, result: Mapping[str, Any]) -> None:
    levels = result["levels"]
    places = range(len(levels))
    bottom = [0.0] * len(levels)
    for stage in [*in_order(levels[0]["stage_s"]), _WAITING]:
        values = [
            level["outside_stages_s"] if stage == _WAITING else level["stage_s"].get(stage, 0.0)
            for level in levels
        ]
        colour = {"color": "lightgrey"} if stage == _WAITING else {}
        label = "queues, transfers" if stage == _WAITING else stage
        axes.bar(places, values, bottom=bottom, label=label, **colour)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    axes.set_xticks(list(places), [str(level["concurrency"]) for level in levels])
    axes.set(
        xlabel="videos in flight", ylabel="seconds a video", title=f"{result['ensemble']}: where they go"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")


def _draw_memory(axes: Any, result: Mapping[str, Any]) -> None:
    timeline = result["timeline"]
    kind = "gpu" if timeline["gpu_mb"] else "host"
    stages = in_order(timeline[f"{kind}_mb"])
    columns = [[value / 1000 for value in timeline[f"{kind}_mb"][stage]] for stage in stages]
    axes.stackplot(timeline["seconds"], *columns, labels=stages)
    if kind == "gpu":
        total = [(value or 0) / 1000 for value in timeline["gpu_total_mb"]]
        axes.plot(timeline["seconds"], total, "k", linewidth=1, label="card")
    for seconds, text in timeline["notes"]:
        axes.axvline(seconds, color="black", linewidth=0.5, linestyle=":")
        axes.text(
            seconds, 1.0, f" {text}", fontsize="x-small", va="top", transform=axes.get_xaxis_transform()
        )
    name = "GPU" if kind == "gpu" else "host"
    axes.set(xlabel="seconds", ylabel="GB", title=f"{result['ensemble']}: {name} memory by process")
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
