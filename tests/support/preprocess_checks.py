"""Pre-processing against the reference: resize and crop, context frames, conversion to bytes.

A file holds `meta["cases"]`, each with a target size and frames in and out in one of two forms
(`NAME` is the case's name):

    io.NAME.in_u8 [n, H, W, 3] → io.NAME.out [1, 3, T, h, w]      the whole clip as the reference
                                       pads it: the last frame repeated after num_input_frames
    io.NAME.in_u8_lastframe [1, H, W, 3] → io.NAME.out_lastframe [1, 3, 1, h, w]

and, outside the cases, `io.image.*` (one picture [H, W, 3]) and `io.save.*` ([0, 1] to bytes).
`meta["real_target_HxW"]` and `meta["float_ceil_surprises"]` tell sizes without pixels.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from cosmos_triton.geometry import CONTEXT_FRAMES
from cosmos_triton.media import context_frames, preprocess, resized_size, to_uint8, unit_to_uint8
from support.parity_files import ParityFile

TOLERANCE = 1e-5  # float32 sums in another order; equal to 1e-6 where it was written


def check_preprocess(file: ParityFile) -> None:
    assert file.tensors, f"{file.path.name} holds no frames"
    unused = set(file.tensors)
    for case in file.meta["cases"]:
        unused -= _check_case(file, case)
    if file.case("image"):
        unused -= _check_image(file)
    if file.case("save"):
        unused -= _check_bytes(file)
    assert not unused, f"tensors that no check understands: {sorted(unused)}"
    for source, target, size in _told_sizes(file.meta):
        assert resized_size(source, target) == size, f"{source} to {target}"


def _check_case(file: ParityFile, case: dict[str, Any]) -> set[str]:
    name, (height, width) = case["name"], case["target"]
    assert resized_size((case["h"], case["w"]), (height, width)) == tuple(case["resized"]), name
    last = [f"io.{name}.in_u8_lastframe", f"io.{name}.out_lastframe"]
    whole = [f"io.{name}.in_u8", f"io.{name}.out"]
    if last[0] in file.tensors or last[1] in file.tensors:
        frames, expected = (file.tensors[key] for key in last)
        _assert_close(name, preprocess(frames.numpy(), height, width), expected[0])
        return set(last)
    frames, expected = (file.tensors[key] for key in whole)
    used = case["num_input_frames"]
    actual = preprocess(frames[-used:].numpy(), height, width)  # [3, used, h, w]
    _assert_close(name, actual, expected[0, :, :used])
    padding = actual[:, -1:].expand(-1, expected.shape[2] - used, -1, -1)
    _assert_close(f"{name}, padding", padding, expected[0, :, used:])
    if used in (1, CONTEXT_FRAMES):
        context = context_frames(frames[-used:].numpy(), height, width)
        _assert_close(f"{name}, context", context, expected[0, :, :CONTEXT_FRAMES])
    return set(whole)


def _check_image(file: ParityFile) -> set[str]:
    picture, expected = file.tensors["io.image.in_u8"], file.tensors["io.image.out_one_frame"]
    height, width = expected.shape[-2:]
    _assert_close("image", preprocess(picture[None].numpy(), height, width), expected[0])
    return {"io.image.in_u8", "io.image.out_one_frame"}


def _check_bytes(file: ParityFile) -> set[str]:
    video = file.tensors["io.save.in"]
    variants = {"io.save.out_u8": video, "io.save.out_u8_from_bf16": video.bfloat16()}
    found = {key: value for key, value in variants.items() if key in file.tensors}
    assert found, "io.save.in has no counterpart"
    for key, value in found.items():
        assert np.array_equal(unit_to_uint8(value), file.tensors[key].numpy()), key
    # From [-1, 1], the same bytes but where halving the sum rounds across a whole number.
    signed = to_uint8(video.double() * 2 - 1)
    assert np.abs(signed.astype(int) - file.tensors["io.save.out_u8"].numpy()).max() <= 1
    return {"io.save.in", *found}


def _told_sizes(
    meta: dict[str, Any],
) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """(source, target, resized) of the sizes that the file only tells."""
    for key, rows in meta.items():
        if key.startswith("real_target_"):
            height, width = key.removeprefix("real_target_").split("x")
            for row in rows:
                yield (row["h"], row["w"]), (int(height), int(width)), tuple(row["resized"])
                top, left = row["resized"][0] - int(height), row["resized"][1] - int(width)
                assert (round(top / 2.0), round(left / 2.0)) == (row["crop_top"], row["crop_left"])
    for height, width, resized, _ in meta.get("float_ceil_surprises", {}).get(
        "examples_h_w_resized_exact", []
    ):
        yield (height, width), (640, 1024), tuple(resized)


def _assert_close(name: str, actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} for {tuple(expected.shape)}"
    difference = float((actual - expected).abs().max()) if actual.numel() else 0.0
    assert difference <= TOLERANCE, f"{name}: differs by {difference:.2e}, at most {TOLERANCE:.0e} is right"


CHECKS: dict[str, Callable[[ParityFile], None]] = {"preprocess": check_preprocess}
