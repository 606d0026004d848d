"""What a file is, by its first bytes; its name is never seen.

Four formats are taken. Any other is named in the refusal: whoever sent base64, an error page or a
GIF learns it from the sentence.
"""

import base64
import re
from typing import Literal

from cosmos_triton.errors import InvalidInput

Format = Literal["PNG", "JPEG", "WEBP", "MP4"]

# The first box of an ISO base media file (ISO/IEC 14496-12) follows its own 32-bit size.
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")

# Major brands of ISO base media files that are no video (MP4RA's registry).
_OTHER_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis"), "a HEIC picture"),
    **dict.fromkeys((b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"), "a HEIF picture"),
    b"crx ": "a Canon raw picture",
    **dict.fromkeys((b"M4A ", b"M4B "), "an MPEG-4 sound file"),
}

_SIGNATURES = tuple(
    (re.compile(start, re.DOTALL), name)
    for start, name in (
        (rb"GIF8", "a GIF picture"),
        (rb"BM.{4}\0{4}", "a BMP picture"),
        (rb"II\*\0|MM\0\*", "a TIFF picture"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
        (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture"),
        (rb"8BPS", "a Photoshop picture"),
        (rb"\0\0\x01\0", "an ICO picture"),
        (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
        (rb"#\?RADIANCE", "a Radiance HDR picture"),
        (rb"DDS ", "a DDS picture"),
        (rb"qoif", "a QOI picture"),
        (rb"P[1-7]\s", "a PNM picture"),
        (rb"\x89PNG", "a PNG picture whose line ends were converted on its way"),
        (rb"\x1aE\xdf\xa3.{,60}webm", "a WebM video"),  # EBML, which tells its document type
        (rb"\x1aE\xdf\xa3", "a Matroska video"),
        (rb"RIFF.{4}AVI ", "an AVI video"),
        (rb"RIFF.{4}WAVE", "a WAV sound file"),
        (rb"OggS", "an Ogg file"),
        (rb"FLV\x01", "an FLV video"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
        (rb"\0\0\x01\xba", "an MPEG program stream"),
        (rb"G.{187}G.{187}G", "an MPEG transport stream"),
        (rb"\0\0\x01\xb3|\0\0\0\x01", "a video stream without a container"),
        (rb"DKIF", "an IVF video"),
        (rb"YUV4MPEG2", "a YUV4MPEG2 video"),
        (rb"ID3|\xff[\xf2\xf3\xfa\xfb]", "an MP3 sound file"),
        (rb"fLaC", "a FLAC sound file"),
        (rb"%PDF", "a PDF document"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "a gzip archive"),
        (rb"BZh[1-9]1AY", "a bzip2 archive"),
        (rb"\xfd7zXZ\0", "an xz archive"),
        (rb"\x28\xb5\x2f\xfd", "a Zstandard archive"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (rb"Rar!", "a RAR archive"),
        (rb".{257}ustar", "a tar archive"),
        (rb"\x93NUMPY", "a NumPy array"),
        (rb"\x89HDF", "an HDF5 file"),
        (rb"\x7fELF", "a program"),
        (rb"\xff\xfe|\xfe\xff", "text in UTF-16"),
    )
)
_TEXT_SIGNATURES = (  # lower case
    ("data:", "a data URL, not the bytes that it encodes"),
    ("http://", "a URL, not the file behind it"),
    ("https://", "a URL, not the file behind it"),
    ("file:", "a URL, not the file behind it"),
    ("s3:", "a URL, not the file behind it"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<svg", "an SVG drawing"),
    ("<?xml", "XML text"),
    ("#extm3u", "a playlist"),
    ("version https://git-lfs", "a Git LFS pointer: `git lfs pull` gets the file"),
)
_SAMPLE = 4096  # bytes looked at
_JSON = re.compile(r"""["]|[{\[]\s*["{\[\d\]}]""")
_ENCODED = 64  # characters of encoded text looked at: 48 bytes of base64, 32 of hexadecimal
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{16,}[=\s]*")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f\s]{16,}")


def media_format(data: bytes) -> Format:
    """The format of a whole file.

    Raises:
        InvalidInput: it is none of the four; the sentence says what it is.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] in _MP4_BOXES and _other_brand(data) is None:
        return "MP4"
    raise InvalidInput(f"the media is {_described(data)}; a png, jpeg, webp or mp4 file is taken")


def _described(data: bytes) -> str:
    if not data.strip(b"\0"):
        return "zeros and nothing else"
    return _binary_kind(data) or _text_kind(data) or "of a format that is not known here"


def _other_brand(data: bytes) -> str | None:
    return _OTHER_BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None


def _binary_kind(data: bytes) -> str | None:
    matching = (name for start, name in _SIGNATURES if start.match(data))
    return _other_brand(data) or next(matching, None)


def _text_kind(data: bytes) -> str | None:
    """What a text is; None for bytes that are no text."""
    text = _as_text(data[:_SAMPLE])
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    for beginning, name in _TEXT_SIGNATURES:
        if start.lower().startswith(beginning):
            return name
    if encoded := _encoded_kind(start):
        return encoded
    if _JSON.match(start):
        return "JSON text"
    return f"text that begins with {start[:24]!r}"


def _as_text(head: bytes) -> str | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a character cut by the end of the sample
            return None
        text = head[: error.start].decode()
    return text if all(character.isprintable() or character.isspace() for character in text) else None


def _encoded_kind(text: str) -> str | None:
    """Base64 or hexadecimal text, with what it encodes where that is known."""
    head = "".join(text.split()).rstrip("=")[:_ENCODED].replace("+", "-").replace("/", "_")
    head = head[: len(head) // 4 * 4]
    for name, alphabet, decode in (
        ("hexadecimal", _HEXADECIMAL, bytes.fromhex),
        ("base64", _BASE64, base64.urlsafe_b64decode),
    ):
        if alphabet.fullmatch(text):
            inner = _taken_or_named(decode(head))
            if inner:
                return f"{name} text of {inner}, not its bytes"
    return None


def _taken_or_named(data: bytes) -> str | None:
    try:
        return f"a {media_format(data).lower()} file"
    except InvalidInput:
        return _binary_kind(data)
