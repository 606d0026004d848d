"""`cosmos-triton download` with the real hub client against a hub on this machine."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from cosmos_triton.checkpoints import download as downloads
from cosmos_triton.checkpoints.hub import DiskFull, DownloadError, HubFile
from cosmos_triton.checkpoints.inspect import inspect_folder
from cosmos_triton.checkpoints.releases import COSMOS1, PREDICT1
from support.hub_server import GOOD_TOKEN, STRANGER_TOKEN, Hub, serving

WEIGHTS = os.urandom(300_000)
BASE_REPOSITORY = "nvidia/Cosmos-Predict1-4B"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(repositories=_repositories())) as hub:
        yield hub


def _repositories() -> dict[str, dict[str, bytes]]:
    """What the published repositories hold, shrunk; all that is not needed is there too."""
    readme = {"README.md": b"# model", ".gitattributes": b"*.pt filter=lfs"}
    archives = {f"{name}.jit": os.urandom(2_000) for name in ("encoder", "decoder", "autoencoder")}
    small = {"config.json": b"{}"}
    text = {
        "config.json": b"{}",
        "spiece.model": os.urandom(1_500),
        "tokenizer.json": b"{}",
        "pytorch_model.bin": os.urandom(5_000),
        "tf_model.h5": os.urandom(5_000),
    }
    return {
        BASE_REPOSITORY: {"model.pt": WEIGHTS} | small | readme,
        "nvidia/Cosmos-Predict1-5B-Video2World": {"model.pt": os.urandom(4_000)} | small | readme,
        "nvidia/Cosmos-Tokenize1-DV8x16x16-720p": archives | small | readme,
        "nvidia/Cosmos-Tokenize1-CV8x8x8-720p": archives
        | {"mean_std.pt": os.urandom(1_200)}
        | small
        | readme,
        "nvidia/Cosmos-Predict1-7B-Decoder-DV8x16x16ToCV8x8x8-720p": {
            "model.pt": os.urandom(4_000),
            "aux_vars.pt": os.urandom(1_500),
        }
        | readme,
        "nvidia/Cosmos-Guardrail1": {"blocklist/custom": b"word", "face_blur_filter/a.pth": os.urandom(1_500)}
        | readme,
        "google-t5/t5-11b": text | readme,
        "Qwen/Qwen3Guard-Gen-0.6B": {"model.safetensors": os.urandom(1_500)} | small | readme,
        "google/siglip-so400m-patch14-384": {"model.safetensors": os.urandom(1_400)} | small | readme,
    }


def run(
    hub: Hub, directory: Path, *arguments: str, token: str = "", **options: object
) -> subprocess.CompletedProcess[str]:
    process = start(hub, directory, *arguments, token=token, **options)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(
    hub: Hub,
    directory: Path,
    *arguments: str,
    token: str = "",
    proxies: Mapping[str, str] | None = None,
    **options: object,
) -> "subprocess.Popen[str]":
    kept = {
        name: value
        for name, value in os.environ.items()
        if "PROXY" not in name.upper() and not name.startswith("HF_")
    }
    environment = (
        kept
        | dict(proxies or {})
        | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(directory.parent / "hf-home"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token,
        }
    )
    command = [sys.executable, "-m", "cosmos_triton.cli", "download", "--checkpoint-dir", str(directory)]
    return subprocess.Popen(
        [*command, *(arguments or ("--models", "4B", "--without", "guardrail"))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def files_in(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


BASE_FILES = {
    "Cosmos-Predict1-4B/model.pt",
    "Cosmos-Predict1-4B/config.json",
    "Cosmos-Tokenize1-DV8x16x16-720p/encoder.jit",
    "Cosmos-Tokenize1-DV8x16x16-720p/decoder.jit",
    "Cosmos-Tokenize1-DV8x16x16-720p/config.json",
    "Cosmos-Tokenize1-CV8x8x8-720p/encoder.jit",
    "Cosmos-Tokenize1-CV8x8x8-720p/decoder.jit",
    "Cosmos-Tokenize1-CV8x8x8-720p/mean_std.pt",
    "Cosmos-Tokenize1-CV8x8x8-720p/config.json",
    "Cosmos-Predict1-7B-Decoder-DV8x16x16ToCV8x8x8-720p/model.pt",
    "Cosmos-Predict1-7B-Decoder-DV8x16x16ToCV8x8x8-720p/aux_vars.pt",
}
TEXT_FILES = {
    f"google-t5/t5-11b/{name}"
    for name in ("config.json", "spiece.model", "tokenizer.json", "pytorch_model.bin")
}


def test_all_that_models_need_arrives_and_a_second_run_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    hub.gated = set(hub.repositories) - {"google-t5/t5-11b"}
    result = run(hub, directory, "--models", "4B", "5B", token=GOOD_TOKEN)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{directory}\n"
    assert "fetching" in result.stderr
    assert files_in(directory) == BASE_FILES | TEXT_FILES | {
        "Cosmos-Predict1-5B-Video2World/model.pt",
        "Cosmos-Predict1-5B-Video2World/config.json",
        "Cosmos-Guardrail1/blocklist/custom",
        "Cosmos-Guardrail1/face_blur_filter/a.pth",
        "Qwen/Qwen3Guard-Gen-0.6B/model.safetensors",
        "Qwen/Qwen3Guard-Gen-0.6B/config.json",
        "google/siglip-so400m-patch14-384/model.safetensors",
        "google/siglip-so400m-patch14-384/config.json",
    }
    assert (directory / "Cosmos-Predict1-4B/model.pt").read_bytes() == WEIGHTS
    stored = [request for request in hub.requests if request.path.startswith("/content/")]
    assert stored
    assert not any(request.authorised for request in stored), "the token must not leave the hub"

    hub.requests.clear()
    assert run(hub, directory, "--models", "4B", "5B", token=GOOD_TOKEN).returncode == 0
    assert hub.fetched() == []


def test_a_dry_run_lists_sizes_and_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    result = run(hub, tmp_path / "checkpoints", "--models", "4B", "--without", "guardrail", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "300.0 kB" in result.stdout
    assert "model.pt" in result.stdout
    assert "tf_model.h5" not in result.stdout
    assert hub.fetched() == []
    assert not (tmp_path / "checkpoints").exists()


def test_release_1_0_has_its_own_names(hub: Hub, tmp_path: Path) -> None:
    names = {
        BASE_REPOSITORY: "nvidia/Cosmos-1.0-Autoregressive-4B",
        "nvidia/Cosmos-Tokenize1-DV8x16x16-720p": "nvidia/Cosmos-1.0-Tokenizer-DV8x16x16",
    }
    hub.repositories = {names[name]: files for name, files in hub.repositories.items() if name in names}
    options = ("--models", "4B", "--without", "guardrail", "diffusion-decoder", "--release", "1.0")
    result = run(hub, tmp_path / "checkpoints", *options)
    assert result.returncode == 0, result.stderr
    assert "Cosmos-1.0-Tokenizer-DV8x16x16/encoder.jit" in files_in(tmp_path / "checkpoints")


def test_a_cut_transfer_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = [100_000, 50_000]
    result = run(hub, tmp_path / "checkpoints")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "checkpoints/Cosmos-Predict1-4B/model.pt").read_bytes() == WEIGHTS
    ranges = [r.range for r in hub.requests if r.path.startswith(f"/content/{BASE_REPOSITORY}")]
    assert ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_killed_download_goes_on_in_the_next_run(hub: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    hub.piece, hub.seconds_per_piece = 20_000, 0.2
    process = start(hub, directory)
    folder = directory / "Cosmos-Predict1-4B"
    _wait_until(lambda: any(path.stat().st_size > 40_000 for path in folder.glob("model.pt.*.partial")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial,) = folder.glob("model.pt.*.partial")
    have = partial.stat().st_size
    assert not (folder / "model.pt").exists()

    hub.requests.clear()
    hub.seconds_per_piece = 0.0
    result = run(hub, directory)
    assert result.returncode == 0, result.stderr
    assert f"bytes={have}-" in {request.range for request in hub.requests}
    assert (folder / "model.pt").read_bytes() == WEIGHTS
    assert not list(folder.glob("*.partial"))


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_slow_server_is_waited_for(hub: Hub, tmp_path: Path) -> None:
    hub.piece, hub.seconds_per_piece = 100_000, 0.5
    assert run(hub, tmp_path / "checkpoints").returncode == 0


def test_a_server_that_stalls_is_asked_again(hub: Hub, tmp_path: Path) -> None:
    hub.stalls = 1
    result = run(hub, tmp_path / "checkpoints")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "checkpoints/Cosmos-Predict1-4B/model.pt").read_bytes() == WEIGHTS


@pytest.mark.parametrize("path", [f"{BASE_REPOSITORY}/revision/main", f"{BASE_REPOSITORY}/model.pt"])
def test_the_hub_says_when_to_come_back(hub: Hub, tmp_path: Path, path: str) -> None:
    hub.retry_after = {path: ["2", format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)]}
    began = time.monotonic()
    result = run(hub, tmp_path / "checkpoints")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began > 2
    assert "going on in 2 s" in result.stderr
    assert hub.retry_after == {path: []}


def test_a_corrupt_file_is_never_left_behind(hub: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    hub.corrupt = {"model.pt"}
    result = run(hub, directory)
    assert result.returncode == 8
    assert "model.pt of nvidia/Cosmos-Predict1-4B arrived with a wrong checksum" in result.stderr
    assert not [name for name in files_in(directory) if "model.pt" in name]

    hub.corrupt = set()
    assert run(hub, directory).returncode == 0


def test_a_listing_without_sizes_and_checksums(hub: Hub, tmp_path: Path) -> None:
    hub.terse = True
    hub.corrupt = {"model.pt"}
    assert run(hub, tmp_path / "checkpoints").returncode == 8
    hub.corrupt = set()
    assert run(hub, tmp_path / "checkpoints").returncode == 0
    assert (tmp_path / "checkpoints/Cosmos-Predict1-4B/model.pt").read_bytes() == WEIGHTS


def test_what_was_downloaded_can_be_served(hub: Hub, tiny: Path, tmp_path: Path) -> None:
    published = {BASE_REPOSITORY: "Cosmos-Predict1-tiny"} | {
        PREDICT1.repository(name): name
        for name in (PREDICT1.discrete_tokenizer, PREDICT1.continuous_tokenizer)
    }
    published[PREDICT1.repository(PREDICT1.diffusion_decoder)] = PREDICT1.diffusion_decoder
    hub.repositories = {
        repository: {path.name: path.read_bytes() for path in (tiny / name).iterdir()}
        for repository, name in published.items()
    }
    result = run(hub, tmp_path / "checkpoints")
    assert result.returncode == 0, result.stderr
    report = inspect_folder(tmp_path / "checkpoints")
    assert [ensemble.ensemble for ensemble in report.ensembles if ensemble.servable] == [
        "cosmos_base",
        "cosmos_base_fast",
    ]


def test_a_file_damaged_on_disk_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    assert run(hub, directory).returncode == 0
    damaged = directory / "Cosmos-Predict1-4B/model.pt"
    damaged.write_bytes(WEIGHTS[:-1] + b"?")
    assert run(hub, directory).returncode == 0
    assert damaged.read_bytes() == WEIGHTS


def _gate(hub: Hub) -> None:
    hub.gated = {BASE_REPOSITORY}


def _gate_the_last(hub: Hub) -> None:
    hub.gated = {"nvidia/Cosmos-Guardrail1"}


def _fail(hub: Hub) -> None:
    hub.status = 503


def _ask_for_an_hour(hub: Hub) -> None:
    hub.retry_after = {f"{BASE_REPOSITORY}/revision/main": ["3600"]}


def _lose_repository(hub: Hub) -> None:
    del hub.repositories[BASE_REPOSITORY]


def _lose_file(hub: Hub) -> None:
    del hub.repositories["nvidia/Cosmos-Tokenize1-CV8x8x8-720p"]["mean_std.pt"]


def _lose_listed_file(hub: Hub) -> None:
    hub.unlisted = {"model.pt"}


def _escape(hub: Hub) -> None:
    hub.repositories[BASE_REPOSITORY]["../evil.json"] = b"{}"


@pytest.mark.parametrize(
    ("misbehave", "token", "exit_code", "said"),
    [
        (_gate, "", 3, "accept the licence at {url}/nvidia/Cosmos-Predict1-4B"),
        (_gate, "hf_unknown", 4, "refused the token (401)"),
        (_gate, STRANGER_TOKEN, 5, "accept the licence at {url}/nvidia/Cosmos-Predict1-4B"),
        (_gate_the_last, STRANGER_TOKEN, 5, "{url}/nvidia/Cosmos-Guardrail1"),
        (_fail, "", 6, "status 503"),
        (_ask_for_an_hour, "", 6, "asks to come back in 3600 s (status 429)"),
        (_gate, "hf_é", 4, "the token in HF_TOKEN holds 'é'"),
        (_gate, "hf_a b", 4, "the token in HF_TOKEN holds ' '"),
        (_lose_repository, GOOD_TOKEN, 9, "Cosmos-Predict1-4B"),
        (_lose_file, "", 9, "nvidia/Cosmos-Tokenize1-CV8x8x8-720p has no mean_std.pt"),
        (_lose_listed_file, "", 9, "model.pt (404)"),
        (_escape, "", 1, "'../evil.json'"),
    ],
)
def test_each_refusal_has_its_sentence_and_comes_before_the_first_byte(
    hub: Hub, tmp_path: Path, misbehave: Callable[[Hub], None], token: str, exit_code: int, said: str
) -> None:
    misbehave(hub)
    result = run(hub, tmp_path / "checkpoints", "--models", "4B", token=token)
    assert result.returncode == exit_code, result.stderr
    sentence = result.stderr.strip().splitlines()
    assert len(sentence) == 1
    assert said.format(url=hub.url) in sentence[0]
    assert hub.fetched() == []


def test_no_network(hub: Hub, tmp_path: Path) -> None:
    with serving(Hub()) as gone:
        pass
    result = run(gone, tmp_path / "checkpoints")
    assert result.returncode == 6
    assert f"{gone.url} cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5://127.0.0.1:9", "a SOCKS proxy (socks5://127.0.0.1:9) needs: pip install socksio"),
        ("ftp://127.0.0.1:9", "cannot be reached through the proxy ftp://127.0.0.1:9"),
        ("http://127.0.0.1:9", "cannot be reached through the proxy http://127.0.0.1:9"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(hub: Hub, tmp_path: Path, proxy: str, said: str) -> None:
    result = run(hub, tmp_path / "checkpoints", proxies={"HTTP_PROXY": proxy})
    assert result.returncode == 6
    (sentence,) = result.stderr.strip().splitlines()
    assert said in sentence


def test_a_full_disk_keeps_what_has_arrived(hub: Hub, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    hub.piece = 10_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = run(hub, directory, preexec_fn=limit)
    assert result.returncode == 7, result.stderr
    assert "does not fit" in result.stderr
    (partial,) = (directory / "Cosmos-Predict1-4B").glob("*.partial")
    assert 0 < partial.stat().st_size <= 100_000
    assert run(hub, directory).returncode == 0


def test_space_is_checked_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = HubFile("nvidia/x", "main", "model.pt", size=10**9, sha256="0" * 64, git_sha1="")
    item = downloads.Item(file, tmp_path / "model.pt")
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match=r"1\.0 GB are still to come"):
        downloads.check_space([item], tmp_path / "not" / "there")
    item.partial.write_bytes(b"0" * 10**8)  # bytes that are here already need no room
    downloads.check_space([item], tmp_path)


def test_what_models_need() -> None:
    base = {need.directory for need in downloads.wanted(["4B"], PREDICT1)}
    assert "google-t5/t5-11b" not in base
    assert "Cosmos-Predict1-4B" in base
    prompted = [need.directory for need in downloads.wanted(["13B", "13B"], COSMOS1)]
    assert prompted.count("Cosmos-1.0-Autoregressive-13B-Video2World") == 1
    assert "google-t5/t5-11b" in prompted


SHARDS = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], ["model.safetensors"]),
        (["pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
    ],
)
def test_one_format_of_weights_is_fetched(names: list[str], chosen: list[str]) -> None:
    (need,) = [n for n in downloads.wanted(["5B"], PREDICT1) if n.directory == PREDICT1.text_encoder]
    files = [HubFile("r/r", "main", name, 1, "", "") for name in names]
    assert [file.name for file in downloads.choose(need, "r/r", files)] == chosen


def test_a_repository_cannot_write_elsewhere() -> None:
    for name in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(DownloadError, match="outside itself"):
            HubFile("nvidia/x", "main", name, 1, "", "")
