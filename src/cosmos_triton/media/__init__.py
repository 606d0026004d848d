"""Media in and out: untrusted bytes to frames, frames to the networks' pixels, frames to MP4.

    decode      bytes of a png, jpeg, webp or mp4 → the frames the request asked for, within limits
    frames      uint8 frames ↔ the networks' float pixels, as the reference does it
    encode      frames → MP4

Frames are uint8 RGB [T, H, W, 3] everywhere outside the networks.
"""

from cosmos_triton.media.decode import DecodedMedia, check_num_input_frames, decode_media
from cosmos_triton.media.encode import WORLD_FPS, encode_mp4
from cosmos_triton.media.frames import context_frames, preprocess, resized_size, to_uint8, unit_to_uint8
from cosmos_triton.media.limits import MediaLimits
from cosmos_triton.media.videos import all_frames

__all__ = [
    "WORLD_FPS",
    "DecodedMedia",
    "MediaLimits",
    "all_frames",
    "check_num_input_frames",
    "context_frames",
    "decode_media",
    "encode_mp4",
    "preprocess",
    "resized_size",
    "to_uint8",
    "unit_to_uint8",
]
