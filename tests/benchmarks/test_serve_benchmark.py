"""The benchmark's parsing, arithmetic and reports; the load itself needs a server (`make bench`)."""

import base64
import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from benchmarks import memory, perf_analyzer, report, serve, stages
from benchmarks.result import describe

TABLE = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency,"
    "Avg latency,request/response,response wait\n"
    "2,0.05,27,7776167,2,63679,6193984,57379,7,39000000,41000000,41500000,42000000,40000000,34,39999000\n"
)
COMPOSING = (
    "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,"
    "Server Compute Infer,Server Compute Output,Client Recv\n"
    "2,0.05,0,6,{queue},75,{infer},25,0\n"
)
METRICS = """# TYPE cosmos_stage_seconds histogram
cosmos_stage_seconds_count{{model="4B",stage="ar_sampler"}} {videos}
cosmos_stage_seconds_sum{{model="4B",stage="ar_sampler"}} {seconds}
cosmos_stage_seconds_bucket{{model="4B",stage="ar_sampler",le="1"}} 0
cosmos_stage_seconds_count{{model="4B",stage="idle"}} 3
cosmos_stage_seconds_sum{{model="4B",stage="idle"}} 3
"""


@pytest.fixture
def answer(tmp_path: Path) -> perf_analyzer.Answer:
    (tmp_path / "load.csv").write_text(TABLE)
    for stage, queue, infer in (("ar_sampler", 1280, 7900), ("diffusion_decoder", 5000000, 21999900)):
        text = COMPOSING.format(queue=queue, infer=infer)
        (tmp_path / f"{stage}_v1.load.csv").write_text(text)
    load = perf_analyzer.Load("cosmos_base", "localhost:1", tmp_path / "inputs.json", 2, 4)
    return perf_analyzer.parse(tmp_path / "load.csv", load)


def test_tables_become_seconds(answer: perf_analyzer.Answer) -> None:
    assert answer.videos_per_minute == 3
    assert answer.latency_s == {"mean_s": 40, "p50_s": 39, "p90_s": 41, "p95_s": 41.5, "p99_s": 42}
    assert answer.composing["diffusion_decoder"] == perf_analyzer.Composing(queue_s=5, compute_s=22)


def test_the_stage_that_answers_late_is_measured_by_its_own_report(answer: perf_analyzer.Answer) -> None:
    before = stages.parse(METRICS.format(videos=2, seconds=30))
    reported = stages.parse(METRICS.format(videos=6, seconds=90)).since(before)
    assert reported == {"ar_sampler": 15}
    level = serve.level(answer, reported)
    assert level["stage_s"] == {"ar_sampler": 15, "diffusion_decoder": 22}
    assert level["outside_stages_s"] == 3
    assert level["queue_s"]["diffusion_decoder"] == 5


def test_a_load_needs_a_request_for_every_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 requests cannot keep 4 in flight"):
        perf_analyzer.Load("cosmos_base", "localhost:1", tmp_path, 4, 3)


def test_a_failing_perf_analyzer_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "perf_analyzer"
    binary.write_text("#!/bin/sh\necho 'server is not live'\nexit 9\n")
    binary.chmod(0o755)
    monkeypatch.setenv(perf_analyzer.BINARY_VARIABLE, str(binary))
    load = perf_analyzer.Load("cosmos_base", "localhost:1", tmp_path / "inputs.json", 1, 1)
    with pytest.raises(perf_analyzer.PerfAnalyzerError, match="code 9: server is not live"):
        perf_analyzer.run(load, tmp_path / "run")


def test_bytes_carry_their_length_and_seeds_differ(tmp_path: Path) -> None:
    serve.request_file(tmp_path / "in.json", b"clip", "höher")
    requests = json.loads((tmp_path / "in.json").read_text())["data"]
    assert len({request["seed"][0] for request in requests}) == len(requests)
    for name, value in (("media", b"clip"), ("prompt", "höher".encode())):
        raw = base64.b64decode(requests[0][name]["b64"])
        assert raw == struct.pack("<I", len(value)) + value


def test_memory_of_a_process_and_the_names_of_stages() -> None:
    assert 1e6 < memory.proportional_bytes(os.getpid()) < 1e11
    stub = "/b/python/triton_python_backend_stub\0/r/model_repository/ar_sampler/1/model.py\0region\0"
    assert memory._stage(stub) == "ar_sampler"
    assert memory._stage("/opt/tritonserver/bin/tritonserver\0--x\0") == "tritonserver"
    assert memory._stage("python\0x.py\0") == ""
    with subprocess.Popen(["sleep", "60"]) as other:
        assert memory.server_processes(other.pid) == {}
        other.kill()


def test_peaks_are_of_the_sum_and_of_each_stage() -> None:
    samples = [
        memory.Sample(0.0, {"a": 3_000_000_000, "b": 1_000_000_000}, {"a": 2_000_000_000}, 9_000_000_000),
        memory.Sample(0.5, {"a": 1_000_000_000, "b": 2_000_000_000}, {}, 5_000_000_000),
    ]
    record = memory.Record(samples, [(0.1, "first video")])
    peaks = record.peaks()
    assert peaks["host_gb"] == 4
    assert peaks["host_by_stage_gb"] == {"a": 3, "b": 2}
    assert (peaks["gpu_gb"], peaks["gpu_by_stage_gb"]) == (9, {"a": 2})
    assert record.as_dict()["gpu_mb"] == {"a": [2000, 0]}
    assert serve.thinned(record.as_dict())["seconds"] == [0.0, 0.5]


def test_reports_have_every_number_and_three_plots(answer: perf_analyzer.Answer, tmp_path: Path) -> None:
    level = serve.level(answer, {"ar_sampler": 15.0})
    record = memory.Record([memory.Sample(float(i), {"ar_sampler": 10**9}, {}, None) for i in range(3)])
    result = {
        **describe("serve"),
        "ensemble": "cosmos_base",
        "profile": "cpu",
        "environment": {"COSMOS_RESIDENCY": "offload"},
        "models": ["4B"],
        "ready_s": 4.0,
        "levels": [level, {**level, "concurrency": 4}],
        "memory": record.peaks(),
        "timeline": record.as_dict(),
    }
    files = serve.write(result, tmp_path / "out", "run")
    assert [path.name for path in files] == [
        *("run.json", "run.csv", "run.md"),
        *("run-latency.png", "run-stages.png", "run-memory.png"),
    ]
    assert all(path.stat().st_size > 100 for path in files)
    text = (tmp_path / "out" / "run.md").read_text()
    assert "COSMOS_RESIDENCY=offload" in text
    assert "| diffusion_decoder | 22.000 | 22.000 |" in text
    assert "7.5 % of the whole" in text
    console = report.console(result)
    assert "40.00" in console
    assert "peak of the sum" in console
    rows = (tmp_path / "out" / "run.csv").read_text().splitlines()
    assert len(rows) == 3
    assert rows[0].startswith("concurrency,requests,videos_per_minute,mean_s,p50_s")


@pytest.mark.parametrize("words", [["--concurrency", "0", "--url", "x"], ["--profile", "cpu"]])
def test_wrong_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.parse_arguments(words)
    assert "error" in capsys.readouterr().err
