"""Antialiased shapes over batches of clips: the few ways in which a scene puts colour on its canvas.

A pixel's share of a shape is exact where that matters for motion (boxes, dashes, lines), so that nothing
twinkles as it moves. Each function is one compiled kernel on a GPU (`compile_all`).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]

FOG = 70.0  # metres after which a thing keeps a 1/e of its own colour
TREE_SPACING, TREES, TREE_PLACE = 30.0, 3, 6.6  # metres between, on each side, metres from the centre line
DASH_PERIOD, DASH_LENGTH = 6.0, 3.0
STRIPE_PERIOD = 16.0  # metres of light and dark grass together
ROAD_EDGE, LINE_PLACE, LINE_WIDTH = 3.7, 3.4, 0.16  # metres from the centre line
CAR_WIDTH, CAR_HEIGHT = 1.8, 1.5

_RUBBER, _GLASS = (0.07, 0.07, 0.08), (0.16, 0.20, 0.26)
_BRAKE, _TAIL, _HEAD = (1.0, 0.16, 0.12), (0.45, 0.05, 0.06), (1.0, 0.96, 0.80)


@dataclass
class Canvas:
    """What has been drawn so far."""

    video: Tensor  # [N, T, 3, H, W] float in [0, 1]
    labels: Tensor  # [N, T, H, W] uint8


@dataclass(frozen=True)
class Sky:
    """What the backdrop follows from: colours [N, T, 3], the rest [N] or [N, T] as in `Scenes`, `Motion`."""

    above: Tensor
    haze: Tensor
    far: Tensor
    near: Tensor
    grass: Tensor
    dark_grass: Tensor
    road: Tensor
    line: Tensor
    sun: Tensor
    horizon: Tensor
    sun_place: Tensor
    hills: Tensor
    yaw: Tensor
    bend: Tensor
    camera: Tensor
    travelled: Tensor
    dash_phase: Tensor


def backdrop(sky: Sky, height: int, width: int, focal: float, camera_height: float) -> tuple[Tensor, Tensor]:
    """Sky, sun, hills, grass and road: ([N, T, 3, H, W] float, [N, T, H, W] uint8 with 1 on dashes)."""
    return _backdrop(*(getattr(sky, f.name) for f in fields(sky)), height, width, focal, camera_height)


def car(
    canvas: Canvas,
    box: Tensor,
    colour: Tensor,
    haze: Tensor,
    fog: Tensor,
    there: Tensor,
    braking: Tensor,
    oncoming: Tensor,
    label: int,
) -> None:
    """A car from behind, or from the front where it is `oncoming`.

    Args:
        box: [N, T, 4] left, top, right, bottom.
        colour, haze: [N, T, 3].
        fog: [N, T, 1] share of its own colour.
        there, braking, oncoming: [N, T] 0 or 1.
    """
    left, top, right, bottom = box.unbind(-1)
    middle, half, tall = (left + right) / 2, (right - left) / 2, bottom - top
    level = fog.mean(-1)

    def part(x0: float, y0: float, x1: float, y1: float, shade: Tensor, opacity: float = 1.0) -> None:
        place = torch.stack(
            [middle + x0 * half, bottom - y1 * tall, middle + x1 * half, bottom - y0 * tall], dim=-1
        )
        hazy = haze + (shade - haze) * level[..., None]
        _box(canvas, place, hazy, there * opacity, label)

    def fixed(value: tuple[float, float, float]) -> Tensor:
        return torch.tensor(value, device=colour.device).expand_as(colour)

    rear = fixed(_TAIL) + (fixed(_BRAKE) - fixed(_TAIL)) * braking[..., None]
    lamp = rear + (fixed(_HEAD) - rear) * oncoming[..., None]
    part(-1.06, -0.05, 1.06, 0.05, fixed((0.05, 0.05, 0.06)), 0.6)
    for x in (-0.94, 0.58):
        part(x, 0.0, x + 0.36, 0.3, fixed(_RUBBER))
    part(-0.76, 0.58, 0.76, 1.0, colour * 0.92)
    part(-0.64, 0.63, 0.64, 0.92, fixed(_GLASS))
    part(-1.0, 0.16, 1.0, 0.62, colour)
    part(-1.0, 0.16, 1.0, 0.27, colour * 0.6)
    for x in (-0.96, 0.64):
        part(x, 0.40, x + 0.32, 0.56, lamp)


def tree(
    canvas: Canvas,
    column: Tensor,
    ground: Tensor,
    metre: Tensor,
    crown: Tensor,
    trunk: Tensor,
    haze: Tensor,
    fog: Tensor,
    shown: Tensor,
) -> None:
    """A trunk and a round crown. Places, pixels a metre and opacity [N, T]; colours [N, T, 3]."""
    trunk, crown = (haze + (colour - haze) * fog for colour in (trunk, crown))
    stem = torch.stack([column - 0.18 * metre, ground - 2.0 * metre, column + 0.18 * metre, ground], dim=-1)
    top = torch.stack([column, ground - 3.0 * metre, 1.3 * metre, 1.6 * metre], dim=-1)
    _box(canvas, stem, trunk, shown, 0)
    _ellipse(canvas, top, crown, shown, 0)


def ball(canvas: Canvas, box: Tensor, ground: Tensor, colour: Tensor, there: Tensor, label: int) -> None:
    """A ball with a highlight, and its shadow on the road. ground, there: [N, T]."""
    column, row = (box[..., 0] + box[..., 2]) / 2, (box[..., 1] + box[..., 3]) / 2
    radius = (box[..., 2] - box[..., 0]) / 2
    shadow = torch.stack([column, ground, 0.9 * radius, 0.22 * radius], dim=-1)
    round_ = torch.stack([column, row, radius, radius], dim=-1)
    shine = torch.stack([column - 0.3 * radius, row - 0.35 * radius, 0.34 * radius, 0.3 * radius], dim=-1)
    for shape, shade, opacity, tag in (
        (shadow, torch.full_like(colour, 0.05), 0.45, 0),
        (round_, colour, 1.0, label),
        (shine, 0.5 + colour / 2, 0.8, label),
    ):
        _ellipse(canvas, shape, shade, there * opacity, tag)


def compile_all() -> None:
    """Compile the kernels, for drawing many clips on a GPU."""
    global _backdrop, _paint_box, _paint_ellipse
    _backdrop, _paint_box, _paint_ellipse = (
        torch.compile(kernel, dynamic=False) for kernel in (_backdrop, _paint_box, _paint_ellipse)
    )


def _box(canvas: Canvas, box: Tensor, colour: Tensor, opacity: Tensor, label: int) -> None:
    """A box [N, T, 4] left, top, right, bottom; colour [N, T, 3], opacity [N, T]."""
    _paint(canvas, _paint_box, box, box.new_ones(4), box, colour, opacity, label)


def _ellipse(canvas: Canvas, shape: Tensor, colour: Tensor, opacity: Tensor, label: int) -> None:
    """An ellipse [N, T, 4] column, row, horizontal and vertical radius."""
    centre, radii = shape.split(2, dim=-1)
    around = torch.cat([centre - radii, centre + radii], dim=-1)
    _paint(canvas, _paint_ellipse, around, shape.new_tensor([1, 1, 0, 0]), shape, colour, opacity, label)


def _paint(
    canvas: Canvas,
    kernel: Kernel,
    around: Tensor,
    moves: Tensor,
    shape: Tensor,
    colour: Tensor,
    opacity: Tensor,
    label: int,
) -> None:
    """Run a kernel: over whole pictures on a GPU, on a CPU over the part of each clip that it can change.

    Args:
        around: [N, T, 4] what encloses the shape.
        moves: [4] which numbers of the shape (1 or 0) count from the corner of the part.
    """
    if canvas.video.device.type != "cpu":
        canvas.video, canvas.labels = kernel(canvas.video, canvas.labels, shape, colour, opacity, label)
        return
    for clip in range(len(shape)):
        seen = around[clip][opacity[clip] > 0]
        if not len(seen):
            continue
        left, top = (seen[:, :2].amin(0).floor().int() - 1).clamp(min=0).tolist()
        right, bottom = (seen[:, 2:].amax(0).ceil().int() + 1).clamp(min=0).tolist()
        part = (slice(clip, clip + 1), ..., slice(top, bottom), slice(left, right))
        if not canvas.labels[part].numel():
            continue
        one = slice(clip, clip + 1)
        moved = shape[one] - moves * shape.new_tensor([left, top, left, top])
        canvas.video[part], canvas.labels[part] = kernel(
            canvas.video[part], canvas.labels[part], moved, colour[one], opacity[one], label
        )


def _paint_box(
    video: Tensor, labels: Tensor, box: Tensor, colour: Tensor, opacity: Tensor, label: int
) -> tuple[Tensor, Tensor]:
    """box [N, T, 4], colour [N, T, 3], opacity [N, T]. A label of 0 leaves the labels as they are."""
    rows, columns = _pixels(video)
    left, top, right, bottom = (edge[..., None, None] for edge in box.unbind(-1))
    share = _overlap(columns, left, right) * _overlap(rows, top, bottom)
    return _blend(video, labels, share * opacity[..., None, None], colour, label)


def _paint_ellipse(
    video: Tensor, labels: Tensor, shape: Tensor, colour: Tensor, opacity: Tensor, label: int
) -> tuple[Tensor, Tensor]:
    """shape [N, T, 4]: column, row, horizontal and vertical radius."""
    rows, columns = _pixels(video)
    column, row, across, up = (value[..., None, None] for value in shape.unbind(-1))
    reach = torch.sqrt(((columns - column) / across).square() + ((rows - row) / up).square() + 1e-9)
    share = (0.5 + (1 - reach) * torch.minimum(across, up)).clamp(0, 1)
    return _blend(video, labels, share * opacity[..., None, None], colour, label)


def _blend(video: Tensor, labels: Tensor, share: Tensor, colour: Tensor, label: int) -> tuple[Tensor, Tensor]:
    video = video + share.unsqueeze(2) * (colour[..., None, None] - video)
    return video, torch.where(share > 0.5, label, labels) if label else labels


def _backdrop(
    above: Tensor,
    haze: Tensor,
    far: Tensor,
    near: Tensor,
    grass: Tensor,
    dark_grass: Tensor,
    road: Tensor,
    line: Tensor,
    sun: Tensor,
    horizon: Tensor,
    sun_place: Tensor,
    hills: Tensor,
    yaw: Tensor,
    bend: Tensor,
    camera: Tensor,
    travelled: Tensor,
    dash_phase: Tensor,
    height: int,
    width: int,
    focal: float,
    camera_height: float,
) -> tuple[Tensor, Tensor]:
    device = above.device
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None] + 0.5  # [H, 1]
    columns = torch.arange(width, device=device, dtype=torch.float32) + 0.5  # [W]
    skyline = horizon[:, None, None, None]  # [N, 1, 1, 1]

    def colour(value: Tensor) -> Tensor:
        return value[..., None, None]  # [N, T, 3, 1, 1]

    def mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        return first + share.unsqueeze(2) * (second - first)

    picture = mix(colour(above), colour(haze), (rows / skyline).clamp(0, 1) ** 1.5)
    reach = torch.sqrt(
        (columns - sun_place[:, 0, None, None, None]).square()
        + (rows - skyline + sun_place[:, 1, None, None, None]).square()
    )
    picture = mix(picture, colour(sun), (9.5 - reach).clamp(0, 1))
    scroll = yaw[:, :, None, None]  # [N, T, 1, 1]
    for layer, (share, shade) in enumerate(((1.0, far), (1.3, near))):
        place = columns + share * scroll  # [N, T, 1, W]
        first, second, tall, _ = (hills[:, 4 * layer + i, None, None, None] for i in range(4))
        wave = torch.sin(place / (41 - 9 * layer) + 6.3 * first) + 0.5 * torch.sin(place / 17 + 6.3 * second)
        ridge = skyline - (13 - 6 * layer) - (3 + 2 * tall) * wave / (1 + layer)
        picture = mix(picture, colour(shade), (rows - ridge + 0.5).clamp(0, 1))

    ahead = focal * camera_height / (rows - skyline).clamp(min=0.5)  # metres, [N, 1, H, 1]
    footprint = ahead.square() / (focal * camera_height)
    place = ahead + travelled[:, :, None, None]  # [N, T, H, 1]
    stripes = _share(place, footprint, STRIPE_PERIOD, STRIPE_PERIOD / 2)
    dashes = _share(place + dash_phase[:, None, None, None], footprint, DASH_PERIOD, DASH_LENGTH)
    across = camera[:, :, None, None] - bend[:, :, None, None] * ahead.square() / 2
    x = across + (columns - width / 2) * ahead / focal  # metres from the centre line, [N, T, H, W]
    wide = ahead / focal
    ground = mix(colour(grass), colour(dark_grass), stripes.expand_as(x))
    ground = mix(ground, colour(road), _band(x, wide, 0.0, ROAD_EDGE))
    for side in (-1.0, 1.0):
        ground = mix(ground, colour(line), _band(x, wide, side * LINE_PLACE, LINE_WIDTH / 2))
    dash = dashes * _band(x, wide, 0.0, LINE_WIDTH / 2)
    ground = mix(ground, colour(line), dash)
    ground = mix(colour(haze), ground, torch.exp(-ahead / FOG).expand_as(x))
    below = (rows - skyline + 0.5).clamp(0, 1)  # [N, 1, H, 1]
    return mix(picture, ground, below.expand_as(x)), (dash * below > 0.5).to(torch.uint8)


def _pixels(video: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of rows [H, 1] and columns [W]."""
    height, width = video.shape[-2:]
    rows = torch.arange(height, device=video.device, dtype=torch.float32)[:, None] + 0.5
    return rows, torch.arange(width, device=video.device, dtype=torch.float32) + 0.5


def _overlap(centre: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share of the pixel around `centre` that lies between two edges."""
    return (torch.minimum(centre + 0.5, high) - torch.maximum(centre - 0.5, low)).clamp(0, 1)


def _band(x: Tensor, footprint: Tensor, centre: float, half: float) -> Tensor:
    """Share of pixels of width `footprint` around x that lies within `half` of `centre`."""
    low = torch.maximum(x - footprint / 2, torch.full_like(x, centre - half))
    high = torch.minimum(x + footprint / 2, torch.full_like(x, centre + half))
    return ((high - low) / footprint).clamp(0, 1)


def _share(place: Tensor, footprint: Tensor, period: float, length: float) -> Tensor:
    """Share of the footprint around `place` that a pattern of `length` in every `period` covers."""

    def covered(upto: Tensor) -> Tensor:
        return torch.floor(upto / period) * length + (upto % period).clamp(max=length)

    return ((covered(place + footprint / 2) - covered(place - footprint / 2)) / footprint).clamp(0, 1)
