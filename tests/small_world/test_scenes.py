"""Drawn scenes: the same everywhere, nothing before its time, and everything where the numbers say."""

from dataclasses import replace

import torch

from small_world import drawing, scenes
from small_world.drawing import Canvas
from small_world.scenes import BALL, CAR

BEFORE = 10  # frames up to and with the last one before anything happens


def test_a_seed_means_the_same_scenes() -> None:
    first, second, other = scenes.sample(5, 7), scenes.sample(5, 7), scenes.sample(5, 8)

    assert torch.equal(first.lead_distance, second.lead_distance)
    assert not torch.equal(first.lead_distance, other.lead_distance)


def test_nothing_happens_before_the_event() -> None:
    chosen = scenes.sample(400, 1, events=1.0)
    index = int(((chosen.other == 2) & (chosen.light != chosen.light_after)).nonzero()[0])
    eventful = chosen[index : index + 1]
    calm = replace(
        eventful,
        other=torch.zeros_like(eventful.other),
        light_after=eventful.light,
        bend_after=eventful.bend,
        brake=eventful.brake * (eventful.brake_time < scenes.EVENT),
    )

    assert torch.equal(scenes.draw(eventful, BEFORE).video, scenes.draw(calm, BEFORE).video)
    assert not torch.equal(scenes.draw(eventful).video[:, -1], scenes.draw(calm).video[:, -1])


def test_a_scene_goes_on_as_it_begins() -> None:
    chosen = scenes.sample(1, 3)

    shorter, longer = (scenes.draw(chosen, frames).video[:, :2].int() for frames in (2, 3))
    assert (shorter - longer).abs().max() <= 1  # a level of rounding


def test_ball_and_car_are_where_their_tracks_say() -> None:
    chosen = scenes.sample(60, 5, events=0.0)
    alone = (chosen.ball > 0) & (chosen.lead == 0) & (chosen.other == 0)
    balls, cars = chosen[alone][:1], chosen[(chosen.lead > 0) & (chosen.ball == 0) & (chosen.other == 0)][:1]

    for subject, name, label in ((balls, "ball", BALL), (cars, "lead", CAR)):
        labels = scenes.draw(subject, 2).labels[0, 0]
        left, top, right, bottom = scenes.tracks(subject, 2)[name].box[0, 0].tolist()
        rows, columns = (labels == label).nonzero().unbind(1)
        assert abs(float(columns.float().mean()) + 0.5 - (left + right) / 2) < 1.5
        assert top - 1 <= float(rows.min())
        assert float(rows.max()) <= bottom + 3  # a car's shadow is its own


def test_sentences_tell_what_is_drawn() -> None:
    chosen = scenes.sample(200, 2, events=1.0)
    sentences = scenes.prompts(chosen)

    for place, sentence in enumerate(sentences):
        assert ("overtakes" in sentence) == (int(chosen.other[place]) == 2)
        assert ("ball" in sentence) == bool(chosen.ball[place])
        assert ("bends left" in sentence) == (float(chosen.bend_after[place]) < -0.002)
        assert ("brakes" in sentence) == bool(chosen.brake[place] * chosen.lead[place])
    assert len(set(sentences)) > 100


def test_a_part_of_the_canvas_is_painted_as_the_whole_would_be() -> None:
    torch.manual_seed(0)
    video, labels = torch.rand(2, 3, 3, 20, 30), torch.zeros(2, 3, 20, 30, dtype=torch.uint8)
    colour, opacity = torch.rand(2, 3, 3), torch.rand(2, 3)
    opacity[0] = 0
    box = torch.tensor([4.3, 2.2, 13.7, 33.1]) + torch.rand(2, 3, 4)
    ellipse = torch.tensor([28.0, 9.0, 6.0, 4.0]) + torch.rand(2, 3, 4)

    for paint, kernel, shape in (
        (drawing._box, drawing._paint_box, box),
        (drawing._ellipse, drawing._paint_ellipse, ellipse),
    ):
        canvas = Canvas(video.clone(), labels.clone())
        paint(canvas, shape, colour, opacity, CAR)
        whole, marked = kernel(video, labels, shape, colour, opacity, CAR)
        assert torch.allclose(canvas.video, whole, atol=1e-5)
        assert torch.equal(canvas.labels, marked)
