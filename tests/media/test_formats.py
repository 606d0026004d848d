"""What is not taken is named."""

import base64

import numpy as np
import pytest
from PIL import Image, features

from cosmos_triton.errors import InvalidInput
from cosmos_triton.media import decode_media
from cosmos_triton.media.formats import media_format
from support.media_files import encode, numbered, save

PNG = save(Image.new("RGB", (8, 8), (200, 60, 50)), "PNG")
GIF = save(Image.new("RGB", (8, 8)), "GIF")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_pictures_that_are_taken(format: str):
    assert media_format(save(Image.new("RGB", (8, 8)), format)) == format


@pytest.mark.parametrize("container", ["mp4", "mov", "ismv"])
def test_videos_that_are_taken(container: str):
    assert media_format(encode(numbered(2), container=container)) == "MP4"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (GIF, "a GIF picture"),
        (save(Image.new("RGB", (8, 8)), "BMP"), "a BMP picture"),
        (save(Image.new("RGB", (8, 8)), "TIFF"), "a TIFF picture"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "a HEIC picture"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heic", "a HEIF picture"),
        (b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00M4A mp42", "an MPEG-4 sound file"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "a WAV sound file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive"),
        (PNG.replace(b"\r\n", b"\n"), "a PNG picture whose line ends were converted on its way"),
        (base64.b64encode(PNG), "base64 text of a png file, not its bytes"),
        (base64.encodebytes(PNG), "base64 text of a png file, not its bytes"),
        (base64.urlsafe_b64encode(GIF), "base64 text of a GIF picture, not its bytes"),
        (PNG.hex().encode(), "hexadecimal text of a png file, not its bytes"),
        (b"data:image/png;base64," + base64.b64encode(PNG), "a data URL, not the bytes that it encodes"),
        (b"https://example.org/clip.mp4", "a URL, not the file behind it"),
        (b"\n<!DOCTYPE html><title>404</title>", "an HTML page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'{"media": "clip.mp4"}', "JSON text"),
        (b"#EXTM3U\n", "a playlist"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("Größe: 3".encode(), "text that begins with 'Größe: 3'"),
        ("ä".encode() * 3000, "text that begins with"),
        (bytes(5000), "zeros and nothing else"),
        (bytes([200, 201, 3, 4, 5]), "of a format that is not known here"),
    ],
)
def test_others_are_named(data: bytes, name: str):
    with pytest.raises(
        InvalidInput, match=f"^the media is {name}.*; a png, jpeg, webp or mp4 file is taken$"
    ):
        decode_media(data)


@pytest.mark.parametrize(
    ("container", "codec", "name"),
    [
        ("webm", "libvpx", "a WebM video"),
        ("matroska", "libx264", "a Matroska video"),
        ("avi", "mpeg4", "an AVI video"),
        ("mpegts", "libx264", "an MPEG transport stream"),
        ("flv", "libx264", "an FLV video"),
    ],
)
def test_other_containers_are_named(container: str, codec: str, name: str):
    with pytest.raises(InvalidInput, match=name):
        decode_media(encode(numbered(3), codec=codec, container=container, options={}))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif():
    with pytest.raises(InvalidInput, match="an AVIF picture"):
        decode_media(save(Image.new("RGB", (16, 16)), "AVIF"))


@pytest.mark.parametrize("seed", range(20))
def test_noise_gives_a_sentence(seed: int):
    noise = np.random.default_rng(seed).integers(0, 256, 300, np.uint8).tobytes()
    with pytest.raises(InvalidInput, match="a png, jpeg, webp or mp4 file is taken"):
        decode_media(noise)
