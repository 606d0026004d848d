"""What leaves the server: an MP4 that players take, and a picture for people."""

import io

import av
import numpy as np
import pytest

from cosmos_triton.demo.sample_clip import synthetic_clip
from cosmos_triton.demo.sheet import contact_sheet
from cosmos_triton.media import all_frames, decode_media, encode_mp4


def test_the_file_is_what_players_expect():
    clip = synthetic_clip(33, 160, 256)
    data = encode_mp4(clip)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.frames, stream.average_rate) == (33, 25)
        assert stream.codec_context.colorspace == 1
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert np.abs(decoded.astype(int) - clip).mean() < 2.5
    assert np.array_equal(all_frames(data), decoded)


def test_the_index_is_in_front_of_the_data():
    data = encode_mp4(synthetic_clip(33, 160, 256))
    assert data.index(b"moov") < data.index(b"mdat")


def test_room_for_the_index_of_a_long_video():
    data = encode_mp4(np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8))
    assert data.index(b"moov") < data.index(b"mdat")
    assert decode_media(data).source_frames == 300


def test_the_same_frames_give_the_same_bytes():
    clip = synthetic_clip(10, 208, 320)  # a size at which x264's defaults gave others
    first = encode_mp4(clip)
    for rows in range(5):
        np.random.default_rng(0).integers(0, 256, (200 + rows, 320, 3), np.uint8)  # stirs the heap
        decode_media(first)
        assert encode_mp4(clip) == first


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (3, 15, 16, 3), (3, 16, 17, 3)])
def test_what_yuv420p_cannot_hold(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="cannot be encoded"):
        encode_mp4(np.zeros(shape, np.uint8))


def test_the_sample_moves_and_is_the_same_every_time():
    clip = synthetic_clip()
    assert clip.shape == (24, 200, 320, 3)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, synthetic_clip())
    assert all((clip[i] != clip[i + 1]).any() for i in range(23))


def test_the_contact_sheet_shows_every_frame():
    context = np.full((9, 90, 160, 3), 200, np.uint8)
    world = np.zeros((33, 100, 160, 3), np.uint8)
    world[:] = (0, 200, 0)
    sheet = np.asarray(contact_sheet(context, world, title="cosmos_base, seed 0"))
    assert (sheet == (0, 200, 0)).all(axis=-1).sum() == 33 * 160 * 100
    assert (sheet == (200, 200, 200)).all(axis=-1).sum() == 9 * 160 * 90


def test_the_contact_sheet_of_one_image():
    sheet = contact_sheet(np.zeros((1, 48, 64, 3), np.uint8), np.zeros((33, 160, 256, 3), np.uint8))
    assert sheet.mode == "RGB"
