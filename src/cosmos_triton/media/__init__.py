"""Media in and out: untrusted bytes to frames, frames to the networks' pixels, frames to MP4.

    decode      bytes of a png, jpeg, webp or mp4 → the frames the request asked for, within limits
      formats     what a file is, and the name of what is not taken
      pictures    stills and animations, by Pillow
      videos      the last frames of an mp4, by FFmpeg
      display     what a container says beyond its pixels, applied to them
      profiles    pictures in another colour encoding → sRGB
      colours     the arithmetic of that
    frames      uint8 frames ↔ the networks' float pixels, as the reference does it
    encode      frames → MP4

Frames are uint8 RGB [T, H, W, 3] everywhere outside the networks.
"""

from cosmos_triton.media.decode import check_num_input_frames, decode_media
from cosmos_triton.media.decoded import DecodedMedia
from cosmos_triton.media.encode import WORLD_FPS, encode_mp4
from cosmos_triton.media.frames import context_frames, preprocess, resized_size, to_uint8, unit_to_uint8
from cosmos_triton.media.limits import Deadline, MediaLimits
from cosmos_triton.media.videos import all_frames

__all__ = [
    "WORLD_FPS",
    "Deadline",
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
