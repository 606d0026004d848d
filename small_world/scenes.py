"""Drawn driving and physics scenes of which everything is known: positions, speeds, colours, light.

A camera 1.5 m above a road looks ahead. All of a clip follows from some forty numbers (`Scenes`); where
everything is at each frame follows from them (`motion`), and so do the picture (`draw`), the boxes of cars
and ball (`tracks`) and a sentence that describes the clip (`prompts`). Numbers are drawn on the CPU, so
that a seed means the same clips on every machine; pictures are drawn where the numbers are.

Up to the ninth frame, which is what a model is shown, nothing changes its ways. An *event* comes after:
the car ahead brakes, the road bends, the light changes, a car overtakes.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from small_world import drawing
from small_world.drawing import Canvas, Sky

FRAMES, HEIGHT, WIDTH = 33, 160, 256
FPS = 25.0
FOCAL = 180.0  # pixels
CAMERA_HEIGHT = 1.5  # metres
GRAVITY = 9.8
LANE = 1.75  # metres from the centre line to the middle of a lane
EVENT = 0.4  # seconds: frame 10, the second that a model does not see
NEAREST = 2.2  # metres: what is nearer is not drawn
CLOSEST = 4.5  # metres to the car ahead, at least

LIGHTS = ("day", "dusk", "night")
CAR_COLOURS = {
    "red": (205, 40, 36),
    "yellow": (238, 192, 40),
    "blue": (36, 84, 212),
    "white": (236, 236, 236),
    "purple": (150, 56, 182),
    "turquoise": (26, 184, 178),
}
BALL_COLOURS = {"pink": (240, 62, 150), "orange": (252, 140, 30), "lime": (164, 226, 40)}
_STRAIGHT = 0.002  # 1/m, the curvature from which a road is said to bend
BACKGROUND, DASH, CAR, BALL = range(4)  # labels of pixels

# Sky above, sky at the horizon, far hills, near hills, two greens, road, lines, crowns, trunks, sun or moon,
# and the light that falls on cars and ball.
_PALETTES = (
    (
        (66, 128, 214),
        (204, 224, 240),
        (142, 162, 192),
        (104, 136, 128),
        (100, 158, 72),
        (86, 142, 62),
        (112, 112, 118),
        (242, 242, 236),
        (48, 104, 52),
        (98, 74, 52),
        (255, 244, 200),
        (255, 255, 255),
    ),
    (
        (72, 62, 124),
        (246, 164, 98),
        (122, 84, 122),
        (94, 66, 86),
        (114, 102, 62),
        (98, 90, 54),
        (94, 82, 90),
        (242, 208, 172),
        (78, 70, 40),
        (70, 48, 40),
        (255, 196, 92),
        (238, 208, 192),
    ),
    (
        (20, 28, 70),
        (74, 88, 146),
        (46, 56, 104),
        (34, 46, 84),
        (40, 70, 74),
        (32, 58, 62),
        (60, 64, 84),
        (192, 200, 222),
        (22, 46, 56),
        (42, 42, 54),
        (236, 240, 250),
        (188, 198, 232),
    ),
)


@dataclass(frozen=True)
class Scenes:
    """N clips as numbers, [N] each. Metres, seconds, pixels; X grows to the right of the centre line."""

    horizon: Tensor  # row
    offset: Tensor  # of the camera in its lane
    drift: Tensor  # of the camera, m/s
    speed: Tensor
    acceleration: Tensor
    bend: Tensor  # curvature, 1/m; positive bends right
    bend_after: Tensor  # what it becomes after the event
    light: Tensor  # index into LIGHTS
    light_after: Tensor
    sun_place: Tensor  # column and height above the horizon, [N, 2]
    hills: Tensor  # phases and heights of the two ridges, [N, 8]
    tree_phase: Tensor  # metres
    dash_phase: Tensor
    lead: Tensor  # 1 if there is a car ahead
    lead_distance: Tensor
    lead_speed: Tensor  # relative to the camera
    lead_place: Tensor  # metres from the middle of the lane
    lead_colour: Tensor  # index into CAR_COLOURS
    brake: Tensor  # deceleration, 0 if it does not brake
    brake_time: Tensor
    other: Tensor  # 0 nothing, 1 a car comes towards us, 2 one overtakes
    other_distance: Tensor
    other_speed: Tensor  # of the distance: negative when it comes towards us
    other_colour: Tensor
    ball: Tensor  # 1 if there is one
    ball_radius: Tensor
    ball_distance: Tensor
    ball_place: Tensor  # metres to the right of the camera
    ball_speed: Tensor  # sideways
    ball_bounce: Tensor  # upward speed after each bounce
    ball_phase: Tensor  # seconds since the last bounce
    ball_colour: Tensor  # index into BALL_COLOURS

    def __len__(self) -> int:
        return len(self.horizon)

    def to(self, device: torch.device | str) -> "Scenes":
        """The same scenes on a device."""
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __getitem__(self, index: Any) -> "Scenes":
        """Some of the scenes: a slice or a tensor of indices."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True)
class Motion:
    """Where everything is at each frame, [N, T] each unless it says otherwise."""

    travelled: Tensor  # metres
    bend: Tensor
    yaw: Tensor  # pixels that the far scenery has moved to the left
    camera: Tensor  # X of the camera
    light: Tensor  # [N, T, 3] weights of the three palettes
    lead: Tensor  # distance
    braking: Tensor  # 1 while the lamps burn
    other: Tensor  # distance
    ball_place: Tensor  # X relative to the camera
    ball_height: Tensor  # of its centre above the road


@dataclass(frozen=True)
class Track:
    """The box of one thing at each frame."""

    box: Tensor  # [N, T, 4] left, top, right, bottom in pixels
    visible: Tensor  # [N, T] bool: there, in front of the camera, and its centre in the picture


@dataclass(frozen=True)
class Clips:
    """Drawn clips."""

    video: Tensor  # [N, T, H, W, 3] uint8
    labels: Tensor  # [N, T, H, W] uint8: BACKGROUND, DASH, CAR, BALL


def sample(count: int, seed: int, events: float = 0.5) -> Scenes:
    """Random scenes.

    Args:
        count: how many.
        seed: of these scenes; the same on every machine.
        events: share of the clips in which something changes after the ninth frame.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *more, generator=generator)

    def chance(share: float) -> Tensor:
        return (torch.rand(count, generator=generator) < share).float()

    def choice(*shares: float) -> Tensor:
        edges = torch.tensor(shares).cumsum(0)[:-1]
        return torch.bucketize(torch.rand(count, generator=generator), edges)

    standing = chance(0.2)  # physics: a camera at rest, and always a ball
    speed = uniform(4, 20) * (1 - standing)
    acceleration = uniform(-5, 3) * chance(0.5) * (1 - standing)
    acceleration = acceleration.maximum(-speed / (FRAMES / FPS))
    bend = uniform(0.003, 0.010) * chance(0.7) * (2 * chance(0.5) - 1)
    light = choice(0.42, 0.33, 0.25)
    event = chance(events)
    turns, dims, overtakes, brakes_late = (chance(share) * event for share in (0.45, 0.4, 0.45, 0.5))
    other = torch.where(overtakes > 0, 2, choice(0.5, 0.5))
    overtaking_speed = uniform(7, 14)
    ball = chance(0.5).maximum(standing)
    brakes = chance(0.3)
    brake_time = torch.where(brakes_late > 0, EVENT + uniform(0, 0.12), uniform(-0.3, 0.2))
    nearest = 5 + 3 * ball
    return Scenes(
        horizon=uniform(64, 71),
        offset=uniform(-0.3, 0.3),
        drift=uniform(-0.3, 0.3) * (1 - standing),
        speed=speed,
        acceleration=acceleration,
        bend=bend,
        bend_after=torch.where(
            turns * (1 - standing) > 0, _other_bend(bend, uniform(0.005, 0.010), chance(0.5)), bend
        ),
        light=light,
        light_after=torch.where(dims > 0, (light + choice(0.5, 0.5) + 1) % 3, light),
        sun_place=torch.stack([uniform(20, 236), uniform(22, 52)], dim=1),
        hills=uniform(0, 1, 8),
        tree_phase=uniform(0, drawing.TREE_SPACING),
        dash_phase=uniform(0, drawing.DASH_PERIOD),
        lead=chance(0.8),
        lead_distance=nearest + uniform(0, 9),
        lead_speed=uniform(-3, 4),
        lead_place=uniform(-0.35, 0.35),
        lead_colour=choice(*[1 / len(CAR_COLOURS)] * len(CAR_COLOURS)),
        brake=uniform(4, 8) * brakes.maximum(brakes_late),
        brake_time=brake_time,
        other=other,
        other_distance=torch.where(other == 2, NEAREST - EVENT * overtaking_speed, uniform(12, 42)),
        other_speed=torch.where(other == 2, overtaking_speed, -speed - uniform(5, 14)),
        other_colour=choice(*[1 / len(CAR_COLOURS)] * len(CAR_COLOURS)),
        ball=ball,
        ball_radius=uniform(0.6, 0.9),
        ball_distance=uniform(5.5, 8),
        ball_place=uniform(-3.2, 3.2),
        ball_speed=uniform(-2.4, 2.4),
        ball_bounce=uniform(3, 5.5),
        ball_phase=uniform(0, 1),
        ball_colour=choice(*[1 / len(BALL_COLOURS)] * len(BALL_COLOURS)),
    )


def motion(scenes: Scenes, frames: int = FRAMES) -> Motion:
    """Where everything is at each of the first `frames` frames."""
    t = torch.arange(frames, device=scenes.horizon.device) / FPS  # [T]
    (speed, acceleration, bend, bend_after, offset, drift, lead, lead_speed, brake, brake_time) = (
        value[:, None]
        for value in (
            scenes.speed,
            scenes.acceleration,
            scenes.bend,
            scenes.bend_after,
            scenes.offset,
            scenes.drift,
            scenes.lead_distance,
            scenes.lead_speed,
            scenes.brake,
            scenes.brake_time,
        )
    )
    travelled = speed * t + acceleration * t.square() / 2
    bends = bend + (bend_after - bend) * _smooth((t - EVENT) / 0.6)
    turned = (bends * (speed + acceleration * t)).cumsum(1) / FPS  # radians
    changed = _smooth((t - EVENT) / 0.7)[None, :, None]
    before, after = (
        torch.nn.functional.one_hot(which, len(LIGHTS)).float()[:, None]
        for which in (scenes.light, scenes.light_after)
    )
    braked = (t - brake_time).clamp(min=0)
    bounce = scenes.ball_bounce[:, None]
    since = (t + scenes.ball_phase[:, None]) % (2 * bounce / GRAVITY)
    return Motion(
        travelled=travelled,
        bend=bends,
        yaw=FOCAL * turned,
        camera=LANE + offset + drift * t,
        light=before + (after - before) * changed,
        lead=(lead + lead_speed * t - brake * braked.square() / 2).clamp(min=CLOSEST),
        braking=((brake > 0) & (t >= brake_time)).float(),
        other=scenes.other_distance[:, None] + scenes.other_speed[:, None] * t,
        ball_place=scenes.ball_place[:, None] + scenes.ball_speed[:, None] * t,
        ball_height=scenes.ball_radius[:, None] + bounce * since - GRAVITY * since.square() / 2,
    )


def tracks(scenes: Scenes, frames: int = FRAMES) -> dict[str, Track]:
    """Where `lead`, `other` and `ball` are seen."""
    moved = motion(scenes, frames)
    boxes = {
        "lead": _car_box(scenes, moved, LANE + scenes.lead_place, moved.lead),
        "other": _car_box(scenes, moved, torch.full_like(scenes.lead_place, -LANE), moved.other),
        "ball": _ball_box(scenes, moved),
    }
    there = {"lead": scenes.lead > 0, "other": scenes.other > 0, "ball": scenes.ball > 0}
    distance = {"lead": moved.lead, "other": moved.other, "ball": torch.full_like(moved.lead, CLOSEST)}
    found = {}
    for name, box in boxes.items():
        centre, middle = box[..., 0::2].mean(-1), box[..., 1::2].mean(-1)
        inside = (centre > 0) & (centre < WIDTH) & (middle > 0) & (middle < HEIGHT)
        found[name] = Track(box, there[name][:, None] & (distance[name] > NEAREST) & inside)
    return found


def draw(scenes: Scenes, frames: int = FRAMES) -> Clips:
    """The pictures of scenes, on the device that their numbers are on."""
    moved = motion(scenes, frames)
    colours = _colours(moved.light)
    glow = colours[11]
    sky = Sky(
        *colours[:8],
        sun=colours[10],
        horizon=scenes.horizon,
        sun_place=scenes.sun_place,
        hills=scenes.hills,
        yaw=moved.yaw,
        bend=moved.bend,
        camera=moved.camera,
        travelled=moved.travelled,
        dash_phase=scenes.dash_phase,
    )
    video, labels = drawing.backdrop(sky, HEIGHT, WIDTH, FOCAL, CAMERA_HEIGHT)
    canvas = Canvas(video, labels)
    _draw_trees(canvas, scenes, moved, colours[1], colours[8], colours[9])
    cars = torch.tensor(list(CAR_COLOURS.values()), device=glow.device) / 255
    lead_box = _car_box(scenes, moved, LANE + scenes.lead_place, moved.lead)
    other_box = _car_box(scenes, moved, torch.full_like(scenes.lead_place, -LANE), moved.other)
    lead = (
        lead_box,
        moved.lead,
        cars[scenes.lead_colour],
        scenes.lead[:, None] * torch.ones_like(moved.lead),
        moved.braking,
        torch.zeros_like(moved.lead),
    )
    other = (
        other_box,
        moved.other,
        cars[scenes.other_colour],
        ((scenes.other > 0)[:, None] & (moved.other > NEAREST)).float(),
        torch.zeros_like(moved.lead),
        (scenes.other == 1)[:, None].float() * torch.ones_like(moved.lead),
    )
    far_first = (moved.lead > moved.other)[..., None]
    for nearer in (False, True):
        box, distance, colour, there, braking, oncoming = (
            torch.where((far_first if a.ndim == 3 else far_first[..., 0]) ^ nearer, a, b)
            for a, b in zip(_per_frame(lead), _per_frame(other), strict=True)
        )
        fog = torch.exp(-distance.clamp(min=0) / drawing.FOG)[..., None]
        drawing.car(canvas, box, colour * glow, colours[1], fog, there, braking, oncoming, CAR)
    _draw_ball(canvas, scenes, moved, glow)
    pixels = (canvas.video.clamp(0, 1) * 255).round().to(torch.uint8)
    return Clips(pixels.permute(0, 1, 3, 4, 2).contiguous(), canvas.labels)


def glow(scenes: Scenes, frames: int = FRAMES) -> Tensor:
    """The light that falls on cars and ball, by which their own colour is multiplied: [N, T, 3]."""
    return _colours(motion(scenes, frames).light)[11]


def prompts(scenes: Scenes) -> list[str]:
    """One sentence about each clip, e.g. `Driving at night, the road is straight, a red car overtakes.`"""
    columns = (
        scenes.light,
        scenes.light_after,
        scenes.speed,
        scenes.bend_after,
        scenes.lead,
        scenes.lead_colour,
        scenes.brake,
        scenes.other,
        scenes.other_colour,
        scenes.ball,
        scenes.ball_colour,
    )
    return [_sentence(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _sentence(
    light: int,
    after: int,
    speed: float,
    bend: float,
    lead: float,
    lead_colour: int,
    brake: float,
    other: int,
    other_colour: int,
    ball: float,
    ball_colour: int,
) -> str:
    cars, balls = list(CAR_COLOURS), list(BALL_COLOURS)
    parts = [f"{'driving' if speed else 'standing'} {('by day', 'at dusk', 'at night')[light]}"]
    straight = abs(bend) < _STRAIGHT
    parts.append("the road is straight" if straight else f"the road bends {'right' if bend > 0 else 'left'}")
    if lead:
        parts.append(f"the {cars[lead_colour]} car ahead {'brakes' if brake else 'drives on'}")
    if other:
        parts.append(f"a {cars[other_colour]} car {'comes towards us' if other == 1 else 'overtakes'}")
    if ball:
        colour = balls[ball_colour]
        parts.append(f"{'an' if colour == 'orange' else 'a'} {colour} ball bounces")
    if after != light:
        parts.append(("day breaks", "dusk falls", "night falls")[after])
    return (", ".join(parts) + ".").capitalize()


def _colours(light: Tensor) -> Tensor:
    """The palettes' colours under each frame's light [N, T, 3]: [12, N, T, 3]."""
    palette = torch.tensor(_PALETTES, device=light.device, dtype=torch.float32) / 255
    return torch.einsum("ntp,pcx->cntx", light, palette)


def _other_bend(bend: Tensor, size: Tensor, right: Tensor) -> Tensor:
    """A clear bend to the other side than the road bends now; from a straight, to the one that is drawn."""
    return torch.where(bend == 0, size * (2 * right - 1), -size * bend.sign())


def _smooth(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def _column(scenes: Scenes, moved: Motion, place: Tensor, distance: Tensor) -> Tensor:
    """Column of what stands at X = place [N or N, T], `distance` [N, T] ahead."""
    place = place if place.ndim == 2 else place[:, None]
    return WIDTH / 2 + FOCAL * (place + moved.bend * distance.square() / 2 - moved.camera) / distance


def _row(scenes: Scenes, height: Tensor, distance: Tensor) -> Tensor:
    """Row of what is `height` above the road, `distance` [N, T] ahead."""
    return scenes.horizon[:, None] + FOCAL * (CAMERA_HEIGHT - height) / distance


def _car_box(scenes: Scenes, moved: Motion, place: Tensor, distance: Tensor) -> Tensor:
    distance = distance.clamp(min=NEAREST)
    column = _column(scenes, moved, place, distance)
    half, tall = (FOCAL * size / distance for size in (drawing.CAR_WIDTH / 2, drawing.CAR_HEIGHT))
    ground = _row(scenes, torch.zeros_like(distance), distance)
    return torch.stack([column - half, ground - tall, column + half, ground], dim=-1)


def _ball_box(scenes: Scenes, moved: Motion) -> Tensor:
    distance = scenes.ball_distance[:, None].expand_as(moved.lead)
    column = _column(scenes, moved, moved.camera + moved.ball_place, distance)
    row = _row(scenes, moved.ball_height, distance)
    radius = (FOCAL * scenes.ball_radius / scenes.ball_distance)[:, None]
    return torch.stack([column - radius, row - radius, column + radius, row + radius], dim=-1)


def _per_frame(values: tuple[Tensor, ...]) -> list[Tensor]:
    """Box, distance, colour and switches of a car, each with a value for every frame."""
    box, distance, colour, *switches = values
    return [box, distance, colour[:, None].expand(*box.shape[:2], 3), *switches]


def _draw_trees(
    canvas: Canvas, scenes: Scenes, moved: Motion, haze: Tensor, crown: Tensor, trunk: Tensor
) -> None:
    spacing = drawing.TREE_SPACING
    for index in reversed(range(drawing.TREES)):
        for side in (-1.0, 1.0):
            shift = 0.0 if side < 0 else spacing / 2
            passed = (moved.travelled + scenes.tree_phase[:, None] + shift) % spacing
            distance = (index + 1) * spacing - passed
            shown = ((drawing.TREES * spacing - distance) / 8).clamp(0, 1) * (distance > NEAREST)
            distance = distance.clamp(min=NEAREST)
            column = _column(scenes, moved, torch.full_like(distance, side * drawing.TREE_PLACE), distance)
            metre = FOCAL / distance
            ground = _row(scenes, torch.zeros_like(distance), distance)
            fog = torch.exp(-distance / drawing.FOG)[..., None]
            drawing.tree(canvas, column, ground, metre, crown, trunk, haze, fog, shown)


def _draw_ball(canvas: Canvas, scenes: Scenes, moved: Motion, glow: Tensor) -> None:
    box = _ball_box(scenes, moved)
    colour = torch.tensor(list(BALL_COLOURS.values()), device=glow.device)[scenes.ball_colour] / 255
    ground = _row(scenes, torch.zeros_like(moved.lead), scenes.ball_distance[:, None].expand_as(moved.lead))
    there = scenes.ball[:, None].expand_as(moved.lead)
    drawing.ball(canvas, box, ground, colour[:, None] * glow, there, BALL)
