"""Videos as people send them: phones, ten bits, one key frame, cut off, too short."""

import contextlib
import io

import av
import numpy as np
import pytest

from cosmos_triton.demo.sample_clip import synthetic_clip
from cosmos_triton.errors import InvalidInput
from cosmos_triton.media import MediaLimits, decode_media, encode_mp4
from support.media_files import encode, indices, numbered


def test_the_last_nine_frames_are_used():
    media = decode_media(encode(numbered(30)))
    assert indices(media) == list(range(21, 30))
    assert (media.kind, media.num_input_frames, media.source_frames) == ("video", 9, 30)
    assert (media.width, media.height) == (64, 48)
    assert media.frames.dtype == np.uint8


def test_the_last_frame_alone():
    media = decode_media(encode(numbered(30)), num_input_frames=1)
    assert indices(media) == [29]
    assert media.num_input_frames == 1


@pytest.mark.parametrize("gop", [1, 4, 9, 12, 250])
@pytest.mark.parametrize("bframes", [0, 3])
def test_wherever_the_key_frames_lie(gop: int, bframes: int):
    options = {"crf": "4", "g": str(gop), "bf": str(bframes), "sc_threshold": "0"}
    assert indices(decode_media(encode(numbered(40), options=options))) == list(range(31, 40))


def test_open_groups_of_pictures():
    options = {"crf": "4", "x264-params": "open-gop=1:keyint=8:min-keyint=8:bframes=3:scenecut=0"}
    assert indices(decode_media(encode(numbered(40), options=options))) == list(range(31, 40))


def test_exactly_nine_frames_are_enough():
    assert indices(decode_media(encode(numbered(9)))) == list(range(9))


def test_a_short_video_names_both_counts():
    with pytest.raises(InvalidInput, match="the video has 5 frames, 9 input frames are needed"):
        decode_media(encode(numbered(5)))


def test_variable_frame_rate():
    times = [0, 1, 2, 9, 10, 30, 31, 32, 33, 60, 61, 100]
    assert indices(decode_media(encode(numbered(12), pts=times))) == list(range(3, 12))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("libx264", "yuv444p", {"crf": "4"}),
        ("libx264", "yuv420p10le", {"crf": "4"}),
        ("libx264", "yuv422p10le", {"crf": "4"}),
        ("libx264", "yuvj420p", {"crf": "4"}),
        ("libx265", "yuv420p10le", {"crf": "4", "x265-params": "log-level=none"}),
        ("mpeg4", "yuv420p", {"qscale": "2", "flags": "+qscale"}),
        ("mjpeg", "yuvj420p", {"qscale": "2"}),
    ],
)
def test_other_codecs_and_depths(codec: str, pix_fmt: str, options: dict[str, str]):
    media = decode_media(encode(numbered(12), codec=codec, pix_fmt=pix_fmt, options=options))
    assert indices(media) == list(range(3, 12))


def test_odd_sizes():
    media = decode_media(encode(numbered(10, 47, 63), pix_fmt="yuv444p"))
    assert media.frames.shape == (9, 47, 63, 3)


def test_a_fragmented_mp4():
    data = encode(numbered(30), mux_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    assert indices(decode_media(data)) == list(range(21, 30))


def test_colours_come_back():
    clip = synthetic_clip(10)
    media = decode_media(encode_mp4(clip))
    assert np.abs(media.frames.astype(int) - clip[-9:]).mean() < 2.5


def test_a_cut_file_is_refused_even_if_a_part_plays():
    data = encode_mp4(synthetic_clip(24))
    with pytest.raises(InvalidInput, match="cut short: box 'mdat' lacks"):
        decode_media(data[: len(data) * 3 // 4])


def test_padding_that_is_cut_is_nobodys_loss():
    data = encode(numbered(12)) + (4096).to_bytes(4, "big") + b"free" + bytes(100)
    assert indices(decode_media(data)) == list(range(3, 12))


def test_titles_in_any_encoding():
    data = encode(numbered(12), metadata={"title": "XXXX"})
    assert data.count(b"XXXX") == 1
    assert indices(decode_media(data.replace(b"XXXX", b"\xff\xe9\xfe\xe8"))) == list(range(3, 12))


def test_a_file_without_its_index():
    data = encode(numbered(20))
    with pytest.raises(InvalidInput, match="mp4"):
        decode_media(data[: data.index(b"moov") - 4])


def test_noise_behind_an_mp4_head():
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    with pytest.raises(InvalidInput, match="mp4 video cannot be read"):
        decode_media(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + noise)


def test_a_file_of_sound_alone():
    file = io.BytesIO()
    with av.open(file, mode="w", format="mp4") as muxer:
        stream = muxer.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    with pytest.raises(InvalidInput, match="no video track"):
        decode_media(file.getvalue())


def test_pixels_are_bounded():
    with pytest.raises(InvalidInput, match="64x48 pixels, at most 3000 pixels are taken"):
        decode_media(encode(numbered(10)), limits=MediaLimits(max_video_pixels=3000))


def test_frames_are_bounded():
    with pytest.raises(InvalidInput, match="more than 20 frames"):
        decode_media(encode(numbered(21)), limits=MediaLimits(max_frames=20))


def test_time_is_bounded():
    with pytest.raises(InvalidInput, match="more than 1e-09 s"):
        decode_media(encode(numbered(10)), limits=MediaLimits(max_seconds=1e-9))


def test_only_the_last_group_of_pictures_is_decoded(monkeypatch: pytest.MonkeyPatch):
    import cosmos_triton.media.videos as videos

    starts: list[int | None] = []
    original = videos._decode_from

    def spy(container, stream, start, *rest):
        starts.append(start)
        return original(container, stream, start, *rest)

    monkeypatch.setattr(videos, "_decode_from", spy)
    options = {"crf": "4", "g": "10", "bf": "0", "sc_threshold": "0"}
    assert indices(decode_media(encode(numbered(50), options=options))) == list(range(41, 50))
    assert len(starts) == 1
    assert starts[0] is not None
    assert starts[0] > 0


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_gives_frames_or_a_sentence(seed: int):
    rng = np.random.default_rng(seed)
    data = bytearray(encode_mp4(synthetic_clip(12, 48, 64)))
    for position in rng.integers(0, len(data), 8):
        data[position] = rng.integers(0, 256)
    with contextlib.suppress(InvalidInput):  # anything else that is raised fails the test
        media = decode_media(bytes(data), limits=MediaLimits(max_seconds=5))
        assert len(media.frames) == 9
