"""Command line of the small world: `python -m small_world {scenes,train,measure} --help`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from small_world import measure, plots, scenes
from small_world.train import RECIPES, Options, run

_HERE = Path(__file__).parent


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world",
        description="Draws scenes of which everything is known; trains and measures small networks on them.",
    )
    commands = parser.add_subparsers(required=True)
    _register_scenes(commands)
    _register_train(commands)
    _register_measure(commands)
    arguments = parser.parse_args()
    status: int = arguments.run(arguments)
    return status


def _register_scenes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "scenes",
        help="draw clips: a contact sheet, and each as an MP4",
        description="Draws clips and prints the sentence that describes each. About 2 s a clip on a CPU.",
    )
    parser.add_argument("--count", type=int, default=6, help="clips; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same clips everywhere")
    parser.add_argument(
        "--events", type=float, default=0.5, help="share of clips in which something happens after frame 9"
    )
    parser.add_argument("--output", type=Path, default=Path("demo/scenes"), help="default %(default)s")
    parser.set_defaults(run=_scenes)


def _scenes(arguments: argparse.Namespace) -> int:
    from cosmos_triton.media import encode_mp4  # PyAV, which a training machine may lack

    chosen = scenes.sample(arguments.count, arguments.seed, arguments.events)
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, sentence in enumerate(scenes.prompts(chosen)):
        video = scenes.draw(chosen[i : i + 1]).video[0]
        (arguments.output / f"{i}.mp4").write_bytes(encode_mp4(video.numpy()))
        rows.append(measure.frames(video))
        print(f"{i}.mp4  {sentence}")
    Image.fromarray(np.concatenate(rows)).save(arguments.output / "scenes.png")
    print(f"{arguments.output / 'scenes.png'}  frames {', '.join(map(str, measure.SHEET_FRAMES))} of each")
    return 0


def _register_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    stages = "\n".join(f"  {name:12} {r.plan.minutes:.0f} min  {r.what}" for name, r in RECIPES.items())
    parser = commands.add_parser(
        "train",
        help="train one network",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Trains one stage; each builds on those above it. Minutes are of one H100.\n\n" + stages,
        epilog="A stage that was interrupted goes on when it is started again. "
        "To see it run on a CPU in seconds, add a --folder of your own and "
        "--minutes 0.1 --pool 2 --worlds 4 --test 2 --batch 1",
    )
    parser.add_argument("stage", choices=RECIPES)
    parser.add_argument("--minutes", type=float, help="of training in all; default: the stage's own")
    parser.add_argument(
        "--session-minutes", type=float, help="stop after so many with the state saved; default: do not"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=_HERE / "weights",
        help="of the networks: a stage reads those it builds on and writes its own; default %(default)s",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("demo/training"), help="logs and states; default %(default)s"
    )
    parser.add_argument(
        "--clips",
        type=Path,
        help="train a finished tokenizer further, on the .mp4 files in this folder instead of drawn clips",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0, help="of weights and clips; default %(default)s")
    parser.add_argument("--batch", type=int, help="clips a step; default: the stage's own")
    parser.add_argument(
        "--pool", type=int, default=4000, help="clips kept for a tokenizer, 5.4 MB each; default %(default)s"
    )
    parser.add_argument("--worlds", type=int, help="clips for the other stages; default: the stage's own")
    parser.add_argument("--test", type=int, default=200, help="held-out clips; default %(default)s")
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    plan = replace(RECIPES[arguments.stage].plan, session_minutes=arguments.session_minutes)
    if arguments.minutes is not None:
        plan = replace(plan, minutes=arguments.minutes)
    options = Options(
        folder=arguments.folder,
        runs=arguments.runs,
        device=torch.device(arguments.device),
        seed=arguments.seed,
        clips=arguments.clips,
        batch=arguments.batch,
        pool=arguments.pool,
        worlds=arguments.worlds,
        test=arguments.test,
    )
    run(arguments.stage, options, plan, lambda line: print(line, flush=True))
    return 0


def _register_measure(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "measure",
        help="measure what was trained, on clips that training has not seen",
        description="Runs a folder's networks as they are served over held-out clips; writes measures.json, "
        "a sheet of reconstructions, and the curves of the training logs. About 8 s a clip on two cores.",
    )
    parser.add_argument("--folder", type=Path, default=_HERE / "weights", help="default %(default)s")
    parser.add_argument("--count", type=int, default=200, help="clips; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the clips; default %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--logs", type=Path, default=_HERE / "results", help="folder of *.log.jsonl; default %(default)s"
    )
    parser.add_argument("--output", type=Path, default=Path("demo/measures"), help="default %(default)s")
    parser.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> int:
    device = torch.device(arguments.device)
    measure.measure(arguments.folder, arguments.count, arguments.seed, device, arguments.output)
    logs = sorted(arguments.logs.glob("*.log.jsonl"))
    if logs:
        plots.curves(logs, arguments.output / "curves.png")
    print((arguments.output / "measures.json").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
