"""Precision and recall of a prompt posture on the labelled prompts, and a before/after sheet of faces.

    python tests/guardrails/measure.py prompts [--posture built-in | full --checkpoint-dir DIR]
    python tests/guardrails/measure.py faces docs/images/faces.png

The last line on stdout of `prompts` is one JSON document.
"""

import argparse
import json
import time
from collections import Counter
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cosmos_triton.errors import Blocked
from cosmos_triton.guardrails import GuardrailSettings, load_prompt_guardrail, load_video_guardrail

PROMPTS = Path(__file__).parents[1] / "data" / "guardrails"
PICTURES = ("astronaut.png", "camera.png", "coffee.png", "chelsea.png", "rocket.jpg", "gravel.png")
SIDE, GAP = 200, 8


def prompts(settings: GuardrailSettings) -> None:
    guardrail = load_prompt_guardrail(settings)
    measured: dict[str, dict[str, float]] = {}
    for path in sorted(PROMPTS.glob("*.jsonl")):
        counts: Counter[tuple[str, bool]] = Counter()
        kinds: Counter[tuple[str, str, bool]] = Counter()
        started = time.perf_counter()
        for entry in map(json.loads, path.read_text("utf-8").splitlines()):
            try:
                guardrail.check(entry["prompt"])
                refused = False
            except Blocked:
                refused = True
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
    parser.add_argument("what", choices=("prompts", "faces"))
    parser.add_argument("target", nargs="?", type=Path, default=Path("faces.png"))
    parser.add_argument("--posture", default="built-in", choices=("built-in", "full"))
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = GuardrailSettings(options.posture, options.checkpoint_dir, options.device)
    prompts(settings) if options.what == "prompts" else faces(settings, options.target)


if __name__ == "__main__":
    main()
