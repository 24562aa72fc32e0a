"""The byte-pair vocabulary of the world's captions, in CLIP's format."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel

from shapes.world import COLOURS, SHAPES, SIZES, all_scenes

MAX_TOKENS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> None:
    """Write ``vocab.json``, ``merges.txt`` and their configs.

    English words become one token each. Chinese stays at one token a character: longer merges
    would glue neighbouring words together, and a combination of words that training never shows
    would then be an unknown token.
    """
    symbols = sorted(ByteLevel.alphabet())
    merges = [*_learn_english(), *_spell_chinese()]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += dict.fromkeys(left + right for left, right in merges)
    tokens += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": MAX_TOKENS,
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def _learn_english() -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\s+"), "removed"), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    captions = [scene.caption("en") for scene in all_scenes()]
    tokenizer.train_from_iterator([*captions, "an orange"], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def _spell_chinese() -> list[tuple[str, str]]:
    words = [word for word, _ in COLOURS.values()] + [*SHAPES.values(), *SIZES.values(), "背景上的"]
    merges: dict[tuple[str, str], None] = {}
    for character in sorted(set("".join(words))):
        first, second, third = _as_symbols(character)
        merges[first, second] = None
        merges[first + second, third] = None
        merges[first + second, third + "</w>"] = None
    return list(merges)


def _as_symbols(text: str) -> str:
    """The printable stand-ins that byte-level BPE uses for the bytes of ``text``."""
    return ByteLevel(add_prefix_space=False).pre_tokenize_str(text)[0][0]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
