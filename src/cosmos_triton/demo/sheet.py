"""One picture that shows what went in and what came out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _GAP, _CAPTION, _TITLE = 16, 6, 18, 34  # pixels
_PAPER, _INK, _FAINT = (250, 250, 248), (32, 34, 38), (120, 124, 130)
_CONTEXT, _WORLD = (64, 110, 180), (190, 92, 40)  # the rule beside each section


@dataclass(frozen=True)
class _Section:
    title: str
    note: str
    colour: tuple[int, int, int]
    frames: NDArray[np.uint8]  # [n, H, W, 3]
    numbers: tuple[int, ...]


def contact_sheet(
    context: NDArray[np.uint8],
    world: NDArray[np.uint8],
    *,
    title: str = "",
    columns: int = 9,
    thumbnail_width: int = 160,
) -> Image.Image:
    """The frames a world was made from, and the world, in labelled rows with frame numbers.

    Args:
        context: uint8 RGB [n, H, W, 3], the input frames as sent (any size).
        world: uint8 RGB [T, H, W, 3], the generated video; its first n frames retell the context.
        title: one line on top, for example the model and the seed.
        columns: thumbnails in a row.
        thumbnail_width: pixels.
    """
    told = min(len(context), len(world))
    sections = [
        _Section("Input", f"the {_count(len(context))} sent", _CONTEXT, context, tuple(range(len(context)))),
        _Section(
            "World, context",
            f"{_count(told)} decoded from the input's own tokens",
            _CONTEXT,
            world[:told],
            tuple(range(told)),
        ),
        _Section(
            "World, generated",
            f"{_count(len(world) - told)} that the model continued with",
            _WORLD,
            world[told:],
            tuple(range(told, len(world))),
        ),
    ]
    sections = [section for section in sections if len(section.frames)]
    width = 2 * _MARGIN + columns * thumbnail_width + (columns - 1) * _GAP
    top = _MARGIN + (_TITLE if title else 0)
    height = top + sum(_section_height(section, columns, thumbnail_width) for section in sections) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 2), title, fill=_INK, font=ImageFont.load_default(size=20))
    for section in sections:
        _draw_section(sheet, section, top, columns, thumbnail_width)
        top += _section_height(section, columns, thumbnail_width)
    return sheet


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _thumbnail_height(section: _Section, thumbnail_width: int) -> int:
    _, height, width, _ = section.frames.shape
    return max(1, round(thumbnail_width * height / width))


def _section_height(section: _Section, columns: int, thumbnail_width: int) -> int:
    rows = -(-len(section.frames) // columns)
    return _TITLE + rows * (_thumbnail_height(section, thumbnail_width) + _CAPTION + _GAP)


def _draw_section(
    sheet: Image.Image, section: _Section, top: int, columns: int, thumbnail_width: int
) -> None:
    draw = ImageDraw.Draw(sheet)
    heading = ImageFont.load_default(size=16)
    draw.rectangle((_MARGIN, top + 6, _MARGIN + 4, top + 24), fill=section.colour)
    draw.text((_MARGIN + 12, top + 4), section.title, fill=_INK, font=heading)
    after = _MARGIN + 12 + draw.textlength(section.title, font=heading) + 12
    draw.text((after, top + 7), section.note, fill=_FAINT, font=ImageFont.load_default(size=13))
    size = (thumbnail_width, _thumbnail_height(section, thumbnail_width))
    for index, (frame, number) in enumerate(zip(section.frames, section.numbers, strict=True)):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (thumbnail_width + _GAP)
        upper = top + _TITLE + row * (size[1] + _CAPTION + _GAP)
        sheet.paste(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS), (left, upper))
        label = (left, upper + size[1] + 1)
        draw.text(label, str(number), fill=_FAINT, font=ImageFont.load_default(size=12))
