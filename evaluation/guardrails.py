"""Precision and recall of a prompt posture on labelled prompts, recall by disguise, and a sheet of faces.

    python -m evaluation.guardrails prompts [--posture built-in | full --checkpoint-dir DIR]
    python -m evaluation.guardrails disguises
    python -m evaluation.guardrails faces docs/images/faces.png

The last line on stdout of `prompts` and `disguises` is one JSON document.
"""

import argparse
import json
import logging
import re
import time
from collections import Counter
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cosmos_triton.errors import Blocked
from cosmos_triton.guardrails import (
    GuardrailSettings,
    PromptGuardrail,
    load_prompt_guardrail,
    load_video_guardrail,
)
from evaluation.disguises import DISGUISES

PROMPTS = Path(__file__).parents[1] / "tests" / "data" / "guardrails"
PICTURES = ("astronaut.png", "camera.png", "coffee.png", "chelsea.png", "rocket.jpg", "gravel.png")
ENGLISH = re.compile(r"[A-Za-z ,.'-]+")
SIDE, GAP = 200, 8


def prompts(settings: GuardrailSettings) -> None:
    guardrail = load_prompt_guardrail(settings)
    measured: dict[str, dict[str, float]] = {}
    for path in sorted(PROMPTS.glob("*.jsonl")):
        counts: Counter[tuple[str, bool]] = Counter()
        kinds: Counter[tuple[str, str, bool]] = Counter()
        started = time.perf_counter()
        for entry in map(json.loads, path.read_text("utf-8").splitlines()):
            refused = _refuses(guardrail, entry["prompt"])
            right = refused == (entry["label"] == "harmful")
            counts[entry["label"], refused] += 1
            kinds[entry["label"], entry["kind"], right] += 1
            if not right:
                print(f"wrong ({entry['label']}): {entry['prompt']}")
        hits, false, missed = counts["harmful", True], counts["harmless", True], counts["harmful", False]
        measured[path.stem] = {
            "harmless": false + counts["harmless", False],
            "harmful": hits + missed,
            "precision": round(hits / (hits + false), 3),
            "recall": round(hits / (hits + missed), 3),
            "milliseconds": round(1000 * (time.perf_counter() - started) / sum(counts.values()), 2),
        }
        for label, kind in dict.fromkeys((label, kind) for label, kind, _ in kinds):
            right, wrong = kinds[label, kind, True], kinds[label, kind, False]
            print(f"{path.stem:18} {label:9} {kind:32} {right}/{right + wrong}")
    print(json.dumps({"posture": settings.posture, **measured}))


def disguises(settings: GuardrailSettings) -> None:
    """Of prompts in English letters, judged right as they stand: how many are refused in each disguise."""
    guardrail = load_prompt_guardrail(settings)
    kept: dict[str, list[str]] = {"harmful": [], "harmless": []}
    for entry in (
        json.loads(line) for path in PROMPTS.glob("*.jsonl") for line in path.open(encoding="utf-8")
    ):
        prompt, harmful = entry["prompt"], entry["label"] == "harmful"
        if ENGLISH.fullmatch(prompt) and _refuses(guardrail, prompt) == harmful:
            kept[entry["label"]].append(prompt)
    refused = {
        name: {
            label: sum(_refuses(guardrail, disguise(prompt)) for prompt in prompts)
            for label, prompts in kept.items()
        }
        for name, disguise in DISGUISES.items()
    }
    for name, counts in refused.items():
        print(f"{name:40} harmful {counts['harmful']:4} harmless {counts['harmless']:4}")
    print(
        json.dumps({"prompts": {label: len(prompts) for label, prompts in kept.items()}, "refused": refused})
    )


def _refuses(guardrail: PromptGuardrail, prompt: str) -> bool:
    try:
        guardrail.check(prompt)
    except Blocked:
        return True
    return False


def faces(settings: GuardrailSettings, target: Path) -> None:
    guardrail = load_video_guardrail(settings)
    font = ImageFont.load_default(size=13)
    sheet = Image.new("RGB", (len(PICTURES) * (SIDE + GAP) + GAP, 2 * (SIDE + GAP) + 40), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(PICTURES):
        with as_file(files("skimage") / "data" / name) as path, Image.open(path) as image:
            picture = np.array(image.convert("RGB"))
        after, verdict = guardrail.apply(picture[None])
        left = GAP + column * (SIDE + GAP)
        for row, shown in enumerate((picture, after[0])):
            square = Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(square, (left, GAP + row * (SIDE + GAP)))
        text = f"{name.partition('.')[0]}: {verdict.faces_blurred} blurred"
        draw.text((left, 2 * (SIDE + GAP) + GAP), text, fill=(32, 34, 38), font=font)
    sheet.save(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prompts", "disguises", "faces"))
    parser.add_argument("target", nargs="?", type=Path, default=Path("faces.png"))
    parser.add_argument("--posture", default="built-in", choices=("built-in", "full"))
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = GuardrailSettings(options.posture, options.checkpoint_dir, options.device)
    logging.disable(logging.WARNING)  # a line for each refusal
    if options.what == "faces":
        faces(settings, options.target)
    else:
        {"prompts": prompts, "disguises": disguises}[options.what](settings)


if __name__ == "__main__":
    main()
