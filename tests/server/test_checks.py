import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cosmos_triton.checkpoints.folder import CheckpointFolder
from cosmos_triton.errors import ConfigurationError
from cosmos_triton.geometry import VideoGeometry
from cosmos_triton.host import Gpu
from cosmos_triton.pipeline import ENSEMBLES
from cosmos_triton.server import checks
from cosmos_triton.server.launch import ServerSettings

GPU = Gpu("NVIDIA H100", "9.0", "580")


def settings(repository: Path, folder: Path, **changes: object) -> ServerSettings:
    values = {
        "model_repository": repository / "model_repository",
        "checkpoint_dir": folder,
        "profile": "cpu",
        **changes,
    }
    return ServerSettings.on_free_ports(**values)


def test_a_port_that_is_taken_is_named_with_its_flag(repository: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} of 127\.0\.0\.1 is taken.*--grpc-port"):
            checks.check_ports(settings(repository, repository, grpc_port=port))
    checks.check_ports(settings(repository, repository, grpc_port=port))


def test_one_port_for_two_and_addresses_elsewhere_are_refused(repository: Path) -> None:
    with pytest.raises(ConfigurationError, match="port 8500 is asked for twice"):
        checks.check_ports(settings(repository, repository, grpc_port=8500, http_port=8500))
    with pytest.raises(ConfigurationError, match=r"cannot listen on 203\.0\.113\.1:"):
        checks.check_ports(settings(repository, repository, host="203.0.113.1"))


def test_a_server_has_one_gpu() -> None:
    checks.check_gpu("cpu", ())
    checks.check_gpu("cpu", (GPU, GPU))
    checks.check_gpu("torch", (GPU,))
    with pytest.raises(ConfigurationError, match="profile torch runs on an NVIDIA GPU, and none is visible"):
        checks.check_gpu("torch", ())
    with pytest.raises(ConfigurationError, match=r"2 GPUs are visible.*CUDA_VISIBLE_DEVICES=0"):
        checks.check_gpu("default", (GPU, GPU))


def test_shared_memory_follows_the_size_of_video(tmp_path: Path) -> None:
    assert checks.shared_memory_needed_gib(VideoGeometry(33, 640, 1024)) == 2
    assert checks.shared_memory_needed_gib(VideoGeometry(33, 16, 16)) == 1 / 32
    checks.check_shared_memory(0.001, tmp_path)
    with pytest.raises(ConfigurationError, match=r"but 1e\+09 are needed.*--shm-size"):
        checks.check_shared_memory(1e9, tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/state cannot be made: Not a directory"):
        checks.check_writable(tmp_path / "file" / "state")


def test_room_is_told_in_gigabytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"building takes about 1000000\.0 GB, but .* GB free"):
        checks.check_room(tmp_path, 10**15, "building")


def test_the_environment_overrides_a_parameter(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(repository, repository)
    monkeypatch.delenv("COSMOS_VIDEO_GUARDRAIL_POSTURE", raising=False)
    assert checks.parameter(chosen, "video_guardrail", "posture") == "built-in"
    monkeypatch.setenv("COSMOS_VIDEO_GUARDRAIL_POSTURE", "full")
    assert checks.parameter(chosen, "video_guardrail", "posture") == "full"


def test_a_posture_without_its_package_or_weights_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSMOS_VIDEO_GUARDRAIL_POSTURE", "full")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"video_guardrail .* needs the package cosmos_guardrail"):
        checks.check_guardrails(settings(repository, tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigurationError, match=r"video_guardrail .* need nvidia/Cosmos-Guardrail1"):
        checks.check_guardrails(settings(repository, tmp_path))
    for name in (
        "Cosmos-Guardrail1/video_content_safety_filter/safety_filter.pt",
        "Cosmos-Guardrail1/face_blur_filter/Resnet50_Final.pth",
        "siglip-so400m-patch14-384/config.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    checks.check_guardrails(settings(repository, tmp_path))


def test_without_graphs_only_what_has_them_is_served(repository: Path, copied: Callable[..., Path]) -> None:
    """As after `make demo`, which exports what cosmos_base needs."""
    folder = copied()
    for network in ("video_encoder", "diffusion_denoiser", "latent_decoder"):
        path = checks.graph_path(folder, network)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    served, left_out = checks.ensembles_to_serve(settings(repository, folder), CheckpointFolder(folder), ())
    assert served == ["cosmos_base"]
    assert set(left_out) == set(ENSEMBLES) - {"cosmos_base"}
    assert "lacks video_decoder.onnx: run `cosmos-triton export" in left_out["cosmos_base_fast"]
    with pytest.raises(ConfigurationError, match=r"cosmos_base_fast cannot be served: .* lacks video_dec"):
        checks.ensembles_to_serve(
            settings(repository, folder), CheckpointFolder(folder), ("cosmos_base_fast",)
        )
    with pytest.raises(
        ConfigurationError,
        match=r"lacks text_encoder\.onnx, video_decoder\.onnx",
    ):
        checks.check_graphs(settings(repository, folder))


def test_an_ensemble_by_name_whose_model_is_damaged_is_refused(
    repository: Path, copied: Callable[..., Path]
) -> None:
    folder = copied()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16600000\n"
    (folder / "Cosmos-Predict1-tiny" / "model.pt").write_text(pointer)
    with pytest.raises(ConfigurationError, match=r"cosmos_base_fast cannot be served: .*base model.*LFS"):
        checks.ensembles_to_serve(
            settings(repository, folder, profile="torch"), CheckpointFolder(folder), ("cosmos_base_fast",)
        )
