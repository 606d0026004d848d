"""Pixels in another colour encoding, as sRGB.

An encoding is how a code becomes light (its transfer function) and what light its red, green and
blue are (its primaries). Light is relative: 1.0 is white as sRGB shows it.

    code → light of the encoding → light of BT.709, whose primaries sRGB has
         → highlights compressed below white → sRGB code

Formulas: SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG), IEC 61966-2-1 (sRGB), SMPTE RP 177 (primaries
to XYZ), Bradford (white points). White of HDR is the reference white of ITU-R BT.2408: 203 cd/m² of
PQ, 75 % of HLG. HLG is taken scene-referred, as BT.2408 maps a camera's signal to SDR: without the
display's system gamma.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_CODES = 65536
_REFERENCE_WHITE = 203.0  # cd/m²
_KNEE = 0.5  # light above it gives way to highlights; sRGB code 188
_BAND = 1 << 18  # pixels converted at a time: 3 MB in float32


@dataclass(frozen=True)
class Primaries:
    """CIE 1931 (x, y) of red, green, blue and white."""

    name: str
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]
    white: tuple[float, float]


_D65 = (0.3127, 0.3290)
BT709 = Primaries("BT.709", (0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
BT2020 = Primaries("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)
DISPLAY_P3 = Primaries("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65)
DCI_P3 = Primaries("DCI P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351))
ADOBE_RGB = Primaries("Adobe RGB", (0.640, 0.330), (0.210, 0.710), (0.150, 0.060), _D65)


# Code points of ITU-T H.273, as video streams and the cICP chunk of a png hold them.
_CODED_PRIMARIES = {9: BT2020, 11: DCI_P3, 12: DISPLAY_P3}  # BT.601's differ too little from BT.709's
_LINEAR, _PQ, _HLG = 8, 16, 18


@dataclass(frozen=True, eq=False)
class Encoding:
    """A colour encoding of 16-bit codes."""

    light: NDArray[np.float32]  # [65536], of each code; 1.0 is white
    primaries: Primaries
    name: str
    hdr: bool = False

    @property
    def note(self) -> str:
        """What a conversion to sRGB did, for the report."""
        return f"{self.name} colours {'tone-mapped' if self.hdr else 'converted'} to sRGB"


def coded(primaries: int, transfer: int) -> Encoding | None:
    """The encoding that code points tell; None where pixels are shown as they are."""
    if transfer in (_PQ, _HLG):
        make = pq if transfer == _PQ else hlg
        return make(BT709 if primaries == 1 else _CODED_PRIMARIES.get(primaries, BT2020))
    if transfer == _LINEAR:
        return gamma(1.0, _CODED_PRIMARIES.get(primaries, BT709))
    # BT.709 and BT.2020 share a camera's curve; a display shows it as sRGB's.
    return srgb(_CODED_PRIMARIES[primaries]) if primaries in _CODED_PRIMARIES else None


def pq(primaries: Primaries) -> Encoding:
    """SMPTE ST 2084."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = _unit_codes() ** (1 / m2)
    nits = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return Encoding(
        (nits / _REFERENCE_WHITE).astype(np.float32), primaries, f"HDR (PQ, {primaries.name})", True
    )


def hlg(primaries: Primaries) -> Encoding:
    """ITU-R BT.2100 hybrid log-gamma."""
    light = _hlg_scene(_unit_codes()) / _hlg_scene(np.array(0.75))
    return Encoding(light.astype(np.float32), primaries, f"HDR (HLG, {primaries.name})", True)


def srgb(primaries: Primaries) -> Encoding:
    """The curve of sRGB over other primaries."""
    code = _unit_codes()
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return Encoding(light.astype(np.float32), primaries, primaries.name)


def gamma(exponent: float, primaries: Primaries) -> Encoding:
    """light = code ** exponent."""
    name = f"gamma {exponent:.3g}, {primaries.name}"
    return Encoding((_unit_codes() ** exponent).astype(np.float32), primaries, name)


def peak(pixels: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> float:
    """The lightest channel of the pixels [H, W, 3] in BT.709; above 1.0 it is a highlight."""
    return max(float(_bt709_light(band, encoding).max()) for band in _bands(pixels))


def to_srgb(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding, peak: float = 1.0
) -> NDArray[np.uint8]:
    """Codes of 8 or 16 bits [H, W, 3] as sRGB.

    Args:
        pixels: RGB codes of `encoding`, full range.
        peak: the lightest channel of all that belongs together; 1.0 or less leaves everything as
            light as it is.
    """
    bands = [_srgb_code(_compressed(_bt709_light(band, encoding), peak)) for band in _bands(pixels)]
    return np.concatenate(bands)


def _bands(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
    rows = max(1, _BAND // pixels.shape[1])
    return [pixels[top : top + rows] for top in range(0, len(pixels), rows)]


def _bt709_light(pixels: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> NDArray[np.float32]:
    codes = pixels.astype(np.uint16) * 257 if pixels.dtype == np.uint8 else pixels
    light = encoding.light[codes].reshape(-1, 3) @ _to_bt709(encoding.primaries).T
    return np.maximum(light, 0).reshape(codes.shape)  # below 0 are colours that BT.709 does not have


def _compressed(light: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Light up to `peak` as light up to 1.0: the same below the knee, the same hue above.

    Above the knee it is Reinhard's extended curve, t (1 + t / T²) / (1 + t), which begins with
    slope 1 and reaches the top at the peak T.
    """
    if peak <= 1:
        return np.minimum(light, 1)
    top = (peak - _KNEE) / (1 - _KNEE)
    lightest = np.maximum(np.maximum(light[..., :1], light[..., 1:2]), light[..., 2:])
    over = np.maximum(lightest - _KNEE, 0) / (1 - _KNEE)
    bent = _KNEE + (1 - _KNEE) * over * (1 + over / top**2) / (1 + over)
    scale = np.where(lightest > _KNEE, bent / np.maximum(lightest, _KNEE), 1)
    return np.minimum(light * scale.astype(np.float32), 1)


def _srgb_code(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    index = (light * (_CODES - 1) + 0.5).astype(np.uint16)
    return np.asarray(_srgb_codes()[index], np.uint8)


@cache
def _srgb_codes() -> NDArray[np.uint8]:
    light = _unit_codes()
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(code * 255), np.uint8)


def _unit_codes() -> NDArray[np.float64]:
    return np.arange(_CODES) / (_CODES - 1)


def _hlg_scene(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def same(one: Primaries, other: Primaries) -> bool:
    """Whether two sets of primaries differ by less than their notation rounds."""
    return bool(np.allclose(_points(one), _points(other), atol=0.002))


def possible(primaries: Primaries) -> bool:
    """Whether they are colours that light can have, and span a triangle."""
    points = _points(primaries)
    inside = (points > 0).all() and (points.sum(axis=1) <= 1).all()
    return bool(inside and abs(np.linalg.det(np.c_[points[:3], np.ones(3)])) > 0.01)


def _points(primaries: Primaries) -> NDArray[np.float64]:
    return np.array([primaries.red, primaries.green, primaries.blue, primaries.white])


@cache
def _to_bt709(primaries: Primaries) -> NDArray[np.float32]:
    """[3, 3], light of the primaries to light of BT.709."""
    to_bt709 = np.linalg.inv(_to_xyz(BT709))
    adapted = _adapted(primaries.white, BT709.white)
    return (to_bt709 @ adapted @ _to_xyz(primaries)).astype(np.float32)


def _to_xyz(primaries: Primaries) -> NDArray[np.float64]:
    columns = np.stack([_xyz(point) for point in (primaries.red, primaries.green, primaries.blue)], axis=1)
    return columns * np.linalg.solve(columns, _xyz(primaries.white))


def _adapted(white: tuple[float, float], to: tuple[float, float]) -> NDArray[np.float64]:
    """[3, 3] in XYZ: what is white under one white point is white under the other."""
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (cones @ _xyz(to)) / (cones @ _xyz(white))
    adapted: NDArray[np.float64] = np.linalg.inv(cones) @ np.diag(gains) @ cones
    return adapted


def _xyz(point: tuple[float, float]) -> NDArray[np.float64]:
    """Of luminance 1."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])
