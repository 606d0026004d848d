"""The checks of the full posture: cosmos-guardrail's models, without its ways to fail open.

The library lets a prompt pass when its language model raises or answers nothing it understands, a
frame when its content filter raises, and a face when a weight is missing. Here its networks, lists
and processors are used, and its loops around them are not: an error, a number that is not finite
or an answer without a label refuses the request.
"""

import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cosmos_triton.errors import CheckpointError
from cosmos_triton.guardrails.faces import Box
from cosmos_triton.guardrails.folding import fold, latin
from cosmos_triton.guardrails.interface import Finding, GuardrailSettings
from cosmos_triton.guardrails.patterns import PatternSet, Rules, words_of
from cosmos_triton.guardrails.published import (
    GUARDRAIL,
    SIGLIP,
    TEXT_GUARD,
    Published,
    load,
    reading_from,
)
from cosmos_triton.residency import Residency, Weights, weights_of

FRAMES_AT_ONCE = 8
HARMLESS_PROMPT = "A robot arm lifts a red cube from a table."

_LISTS = ("custom", "exact_match", "whitelist", "nltk_data")
_MATCHED_WORD = re.compile(r"Match Word: (.+)$", re.DOTALL)
_CATEGORIES = re.compile(r"Categories: \[(.*)\]")


class Place(NamedTuple):
    """Where a network runs, and where it is between requests."""

    device: torch.device
    residency: Residency

    def take(self, network: torch.nn.Module) -> Weights:
        """The weights of a network that was just loaded."""
        return weights_of(network.eval().requires_grad_(False), self.device, self.residency)


@dataclass(frozen=True)
class BlocklistCheck:
    """The published word lists, with the library's fuzzy matching.

    It looks at the prompt and at its Latin reading, since the library drops every letter that is
    not ASCII. Phrases of data/allowed.toml (`bleeding edge`) are taken out first.
    """

    blocklist: Any
    allowed: PatternSet
    name: str = "blocklist"

    @classmethod
    def load(cls, published: Published, allowed: PatternSet) -> "BlocklistCheck":
        """Read the lists.

        Raises:
            CheckpointError: a list or NLTK's data is missing, damaged or empty.
        """
        folder = published.part(GUARDRAIL, *(f"blocklist/{name}" for name in _LISTS))

        def build() -> "BlocklistCheck":
            with reading_from(folder) as module:
                blocklist = module.Blocklist(GUARDRAIL[0])
            # A blank line would match every prompt.
            blocklist.exact_match_words = [word for word in blocklist.exact_match_words if word]
            blocklist.blocklist_words = [word for word in blocklist.blocklist_words if word]
            check = cls(blocklist, allowed)
            for words in (blocklist.blocklist_words, blocklist.exact_match_words):
                if not words:
                    raise CheckpointError(f"a word list in {folder / 'blocklist'} is empty: fetch it again")
            check.find(HARMLESS_PROMPT)  # goes through every list and all of NLTK's data
            if not any(check.find(f"there is {word} here") for word in blocklist.blocklist_words[:20]):
                raise CheckpointError(f"the lists in {folder / 'blocklist'} find none of their own words")
            return check

        return load(folder / "blocklist", build)

    def find(self, prompt: str) -> Finding | None:
        """The first listed word, as a finding."""
        for reading in dict.fromkeys((prompt, latin(prompt))):
            text = self._without_allowed(reading)
            if not text.strip(" ."):
                continue
            safe, message = self.blocklist.is_safe(text)
            if not safe:
                return Finding("blocklist", f"{self._matched(text, message)} on the blocklist")
        return None

    def _without_allowed(self, text: str) -> str:
        words = words_of(fold(text))
        remaining = self.allowed.without(words)
        return text if remaining == words else remaining

    @staticmethod
    def _matched(text: str, message: str) -> str:
        """What the library's message says was found; it stars words out, so they are looked up again."""
        if found := _MATCHED_WORD.search(message):
            return f"the prompt comes close to '{found[1]}', which is"
        written, censored = text.split(), message.partition("Censored Prompt: ")[2].split()
        if len(written) == len(censored):
            for word, shown in zip(written, censored, strict=True):
                if "*" in shown:
                    return f"'{word.strip(string.punctuation)}' of the prompt is"
        return "a phrase of the prompt is"


@dataclass(frozen=True)
class TextGuardCheck:
    """A language model that calls a prompt safe, controversial or unsafe; the last is refused."""

    guard: Any
    weights: Weights
    name: str = "text_guard"

    @classmethod
    def load(cls, published: Published, place: Place) -> "TextGuardCheck":
        """Load the model and ask it about a harmless prompt.

        Raises:
            CheckpointError: files are missing or damaged, or the answer has no label.
        """
        folder = published.part(TEXT_GUARD, "config.json")

        def build() -> "TextGuardCheck":
            with reading_from(folder) as module:
                guard = module.Qwen3Guard(str(folder))
            guard.model.generation_config.do_sample = False  # the same prompt, the same verdict
            for unused in ("temperature", "top_p", "top_k"):
                setattr(guard.model.generation_config, unused, None)
            check = cls(guard, place.take(guard.model))
            check.find(HARMLESS_PROMPT)
            return check

        return load(folder, build)

    def find(self, prompt: str) -> Finding | None:
        """The model's verdict. Raises if it gives none."""
        with self.weights.present(), torch.inference_mode():
            # `<|` opens the control tokens with which a prompt could end its own turn.
            safe, message = self.guard.extract_label_and_categories(prompt.replace("<|", "< |"))
        if safe:
            return None
        found = _CATEGORIES.search(message)
        about = found[1].replace("'", "").strip() if found else ""
        return Finding("unsafe", f"the text guard calls the prompt unsafe{f' ({about})' if about else ''}")


@dataclass(frozen=True)
class ContentFilterCheck:
    """SigLIP and a classifier of seven classes; a frame that is not `Safe` refuses the video."""

    filter: Any
    classes: dict[int, str]
    weights: Weights
    name: str = "content_filter"

    @classmethod
    def load(cls, published: Published, place: Place) -> "ContentFilterCheck":
        """Load both networks and classify a grey frame.

        Raises:
            CheckpointError: files are missing or damaged, or give numbers that are not finite.
        """
        name = "video_content_safety_filter/safety_filter.pt"
        folder = published.part(GUARDRAIL, name)
        siglip = _siglip(published, folder / name)

        def build() -> "ContentFilterCheck":
            with reading_from(folder, siglip) as module:
                content_filter = module.VideoContentSafetyFilter(GUARDRAIL[0])
                classes = dict(module.CLASS_IDX_TO_NAME)
            content_filter.encoder.model.text_model = None  # half of SigLIP, never asked
            check = cls(content_filter, classes, place.take(content_filter))
            check.find(np.full((1, 64, 64, 3), 128, np.uint8))
            return check

        return load(folder / name, build)

    def find(self, frames: NDArray[np.uint8]) -> Finding | None:
        """The first frame of [T, H, W, 3] that is not safe."""
        with self.weights.present(), torch.inference_mode():
            for start in range(0, len(frames), FRAMES_AT_ONCE):
                worst = self._classify(frames[start : start + FRAMES_AT_ONCE])
                for index, kind in enumerate(worst):
                    if kind != 0:
                        name = self.classes.get(kind, f"class {kind}")
                        reason = f"frame {start + index} shows {name.replace('_', ' ').lower()}"
                        return Finding(name.lower().replace("-", "_"), reason)
        return None

    def _classify(self, frames: NDArray[np.uint8]) -> list[int]:
        """Class of each frame. On a GPU in half precision, twice where that leaves a doubt."""
        encoder = self.filter.encoder
        weight = next(encoder.model.parameters())
        pictures = [Image.fromarray(frame) for frame in frames]
        pixels = encoder.processor(images=pictures, return_tensors="pt")["pixel_values"].to(weight.device)
        with torch.autocast("cuda", torch.float16, enabled=weight.is_cuda):
            logits = self._logits(pixels)
        if weight.is_cuda:
            best = logits.softmax(-1).topk(2).values  # [B, 2]
            doubtful = (best[:, 0] - best[:, 1]) < 0.1
            if doubtful.any():
                logits[doubtful] = self._logits(pixels[doubtful])
        return [int(kind) for kind in logits.argmax(-1)]

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Finite logits [B, 7], in float32."""
        features = self.filter.encoder.model.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)  # transformers 5 wraps the tensor
        features = features / features.norm(dim=-1, keepdim=True)
        logits: torch.Tensor = self.filter.model.network(features).float()
        if not torch.isfinite(logits).all():  # the largest of NaN is class 0, which is Safe
            raise ValueError("the content filter's logits are not finite")
        return logits


@dataclass(frozen=True)
class RetinaFaces:
    """The published face detector (RetinaFace, ResNet-50)."""

    filter: Any
    module: Any
    weights: Weights
    min_size: int = 20  # pixels; smaller faces cannot be recognised

    @classmethod
    def load(cls, published: Published, place: Place) -> "RetinaFaces":
        """Load the network, every weight of it, and run it once.

        Raises:
            CheckpointError: the file is missing or damaged, or does not fit.
        """
        name = "face_blur_filter/Resnet50_Final.pth"
        folder = published.part(GUARDRAIL, name)

        def build() -> "RetinaFaces":
            with reading_from(folder) as module:
                face_filter = module.RetinaFaceFilter(GUARDRAIL[0], batch_size=FRAMES_AT_ONCE)
            _check_every_weight(face_filter.net, folder / name)
            detector = cls(face_filter, module, place.take(face_filter))
            detector.detect(np.full((1, 64, 64, 3), 128, np.uint8))
            return detector

        return load(folder / name, build)

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Box]]:
        """Boxes of each frame of [T, H, W, 3]."""
        _, height, width, _ = frames.shape
        found: list[list[Box]] = []
        with self.weights.present(), torch.inference_mode():
            weight = next(self.filter.net.parameters())
            priors = (
                self.module.PriorBox(self.filter.cfg, image_size=(height, width)).forward().to(weight.device)
            )
            scale = torch.tensor([width, height, width, height], device=weight.device)
            for start in range(0, len(frames), FRAMES_AT_ONCE):
                pixels = self.filter.preprocess_frames(frames[start : start + FRAMES_AT_ONCE].copy())
                locations, confidences, _ = self.filter.net(pixels)  # [B, P, 4], [B, P, 2]
                if not (torch.isfinite(locations).all() and torch.isfinite(confidences).all()):
                    raise ValueError("the face detector's output is not finite")
                boxes = self.module.decode_batch(locations, priors, self.filter.cfg["variance"]) * scale
                pairs = zip(boxes.cpu().numpy(), confidences[..., 1].cpu().numpy(), strict=True)
                found += [self._boxes(b, scores) for b, scores in pairs]
        return found

    def _boxes(self, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> list[Box]:
        kept = self.module.filter_detected_boxes(
            boxes,
            scores,
            confidence_threshold=self.filter.confidence_threshold,
            nms_threshold=self.module.NMS_THRESHOLD,
            top_k=self.module.TOP_K,
            keep_top_k=self.module.KEEP_TOP_K,
        )
        faces = [Box(*(float(edge) for edge in box)) for box in kept]
        return [f for f in faces if min(f.right - f.left, f.bottom - f.top) >= self.min_size]


def prompt_checks(settings: GuardrailSettings, rules: Rules) -> tuple[BlocklistCheck, TextGuardCheck]:
    """The published checks of prompts; `settings.checkpoint_dir` is set."""
    published, place = _places(settings)
    return BlocklistCheck.load(published, rules.allowed), TextGuardCheck.load(published, place)


def video_models(settings: GuardrailSettings) -> tuple[ContentFilterCheck, RetinaFaces]:
    """The published models of videos; `settings.checkpoint_dir` is set."""
    published, place = _places(settings)
    return ContentFilterCheck.load(published, place), RetinaFaces.load(published, place)


def _places(settings: GuardrailSettings) -> tuple[Published, Place]:
    assert settings.checkpoint_dir is not None  # GuardrailSettings sees to it
    if not settings.checkpoint_dir.is_dir():
        raise CheckpointError(f"checkpoint folder {settings.checkpoint_dir} does not exist")
    return Published(settings.checkpoint_dir), Place(torch.device(settings.device), settings.residency)


def _siglip(published: Published, weights: Path) -> Path:
    """SigLIP's folder: among the checkpoints, or in the cache that the library keeps beside its weights."""
    try:
        return published.part(SIGLIP, "config.json")
    except CheckpointError:
        try:
            return Published(weights.parent).part(SIGLIP, "config.json")
        except CheckpointError:
            pass
        raise


def _check_every_weight(network: torch.nn.Module, path: Path) -> None:
    """Raises CheckpointError unless the file has every weight of the network: the library does not ask."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    names = {name.removeprefix("module.") for name in stored.get("state_dict", stored)}
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    if lacking := sorted(set(network.state_dict()) - names - counters):
        raise CheckpointError(
            f"{path} lacks {len(lacking)} weights, the first is {lacking[0]}: fetch it again"
        )
