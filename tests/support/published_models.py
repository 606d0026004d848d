"""The full posture's files in their published layout, small, with random weights or a fixed answer.

Everything is made here: word lists, NLTK's data, networks. The language model is a transformer (a
Mistral, since a Qwen would insist on its own vocabulary) whose attention does nothing and whose
output head knows one next word for each word, so that the library's real code (chat template,
generation, parsing) reads the answer chosen here.
"""

import itertools
import shutil
from pathlib import Path

import sentencepiece
import torch
from cosmos_guardrail import cosmos_guardrail
from retinaface.data import cfg_re50
from retinaface.models.retinaface import RetinaFace
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTokenizer,
)

CLASSES = 7
HIDDEN = 1152  # of SigLIP's features: the published classifier's input


def write_all(directory: Path) -> Path:
    """A whole checkpoint folder; nothing in it refuses anything but the listed words."""
    guardrail = directory / "nvidia" / "Cosmos-Guardrail1"
    write_blocklist(guardrail)
    write_content_filter(guardrail, safe=True)
    write_faces(guardrail, everywhere=False)
    write_siglip(directory / "google" / "siglip-so400m-patch14-384")
    write_text_guard(directory / "Qwen" / "Qwen3Guard-Gen-0.6B", "Safety: Safe Categories: None")
    return directory


def write_blocklist(guardrail: Path) -> None:
    """Lists of three kinds, and the least NLTK data that its tokenizer and lemmatizer read."""
    lists = {
        "custom/words.txt": "bomb\nbleeding\nlifeless\nweapon\n\n",
        "exact_match/words.txt": "gun fight\nvillain\n\n",
        "whitelist/words.txt": "bombay\n",
    }
    for name, text in lists.items():
        path = guardrail / "blocklist" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    data = guardrail / "blocklist" / "nltk_data"
    punkt = data / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    wordnet = data / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "index.sense").write_text("")
    (wordnet / "lexnames").write_text("00\tnoun.Tops\t1\n")
    for kind in ("noun", "verb", "adj", "adv"):
        (wordnet / f"index.{kind}").write_text("weapon n 1 0 1 0 00000001  \n" if kind == "noun" else "")
        (wordnet / f"data.{kind}").write_text("")
        (wordnet / f"{kind}.exc").write_text("")


def write_text_guard(folder: Path, answer: str) -> None:
    """A model that says `answer` to every prompt; `answer` has no word twice."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["<unk>", "<end>", "ASSISTANT", *dict.fromkeys(answer.split())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    )
    wrapped.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %} ASSISTANT"
    wrapped.save_pretrained(folder)
    config = MistralConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = MistralForCausalLM(config)
    chain = [2, *(words.index(word) for word in answer.split()), 1]
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, : len(words)] += torch.eye(len(words))
        model.lm_head.weight.zero_()
        for word, following in itertools.pairwise(chain):
            model.lm_head.weight[following, word] = 10.0
    model.generation_config.do_sample = True  # as published
    model.save_pretrained(folder)


def write_content_filter(guardrail: Path, safe: bool) -> None:
    """The classifier with random weights, its last bias turned to class 0 (safe) or 2 (violence)."""
    model = cosmos_guardrail.VideoSafetyModel(cosmos_guardrail.ModelConfig(HIDDEN, CLASSES))
    with torch.no_grad():
        model.network.layers[-1].bias[0 if safe else 2] += 100.0
    path = guardrail / "video_content_safety_filter" / "safety_filter.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, path)


def write_siglip(folder: Path) -> None:
    """SigLIP of one layer, random weights, with its processor."""
    folder.mkdir(parents=True)
    tower = {"hidden_size": HIDDEN, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**tower, "image_size": 28, "patch_size": 14}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    sentences = folder / "sentences.txt"
    sentences.write_text("a robot arm lifts a red cube from a table\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences),
        model_prefix=str(folder / "spiece"),
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = SiglipTokenizer(vocab_file=str(folder / "spiece.model"))
    SiglipProcessor(SiglipImageProcessor(size={"height": 28, "width": 28}), tokenizer).save_pretrained(folder)


def write_faces(guardrail: Path, everywhere: bool) -> None:
    """RetinaFace with random weights, sure of a face nowhere or everywhere."""
    network = RetinaFace(cfg={**cfg_re50, "pretrain": False}, phase="test")
    with torch.no_grad():
        for head in network.BboxHead:  # boxes are the priors
            head.conv1x1.weight.zero_()
            head.conv1x1.bias.zero_()
        for head in network.ClassHead:
            head.conv1x1.weight.zero_()
            head.conv1x1.bias.copy_(torch.tensor([0.0, 5.0] if everywhere else [5.0, 0.0]).repeat(2))
    path = guardrail / "face_blur_filter" / "Resnet50_Final.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"module.{name}": weight for name, weight in network.state_dict().items()}, path)


def copy(directory: Path, target: Path) -> Path:
    """A checkpoint folder of hard links, for a test that damages a file (by replacing it)."""
    shutil.copytree(directory, target, copy_function=lambda source, to: Path(to).hardlink_to(source))
    return target
