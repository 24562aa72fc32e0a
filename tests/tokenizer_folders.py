"""Tokenizer folders laid out as the published ones, around a vocabulary trained here."""

import functools
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

SAMPLE = """a photograph of an astronaut riding a horse on mars, highly detailed, digital painting
a beautiful sunset over mountains, trending on artstation, sharp focus, 8k, soft light
the cat's whiskers don't move, we're sure they'll sit; I'd say it's 1984 and you've won
a small red circle to the left of a large blue square on a white background
un café à la crème, señorita, über den Wolken, naïve façade, Ångström
一只可爱的猫坐在桌子上，阳光明媚，水彩画。 日本語のプロンプト、富士山と桜
सुंदर पहाड़ों पर सूर्यास्त और एक नदी । غروب الشمس الجميل فوق الجبال
красивый закат над горами, подробная картина маслом 😀🎨🌄 👨‍👩‍👧
"""


def byte_symbols():
    """OpenAI's order: printable bytes first, so that "!" has the id 0."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


@functools.cache
def train_vocabulary():
    """(vocab, merges) laid out as openai/clip-vit-large-patch14's, trained on SAMPLE."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        end_of_word_suffix="</w>",
        initial_alphabet=byte_symbols(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAMPLE.lower().splitlines() * 3, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += [first + second for first, second in merges]
    return {token: index for index, token in enumerate([*dict.fromkeys(tokens), BOS, EOS])}, merges


def token(content, normalized, **more):
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    return {"content": content, "normalized": normalized} | flags | more


def sd1_config():
    """tokenizer_config.json and special_tokens_map.json of runwayml/stable-diffusion-v1-5."""
    typed = {"__type": "AddedToken"}
    config = {
        "add_prefix_space": False,
        "bos_token": token(BOS, True, **typed),
        "do_lower_case": True,
        "eos_token": token(EOS, True, **typed),
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14",
        "pad_token": EOS,
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": token(EOS, True, **typed),
    }
    special = {
        "bos_token": token(BOS, True),
        "eos_token": token(EOS, True),
        "pad_token": EOS,
        "unk_token": token(EOS, True),
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": special}


def sd2_config():
    files = sd1_config()
    files["special_tokens_map.json"]["pad_token"] = "!"
    return files


def sdxl2_config(vocab):
    """The second tokenizer of stable-diffusion-xl-base-1.0."""
    decoder = {
        "0": token("!", False, special=True),
        str(vocab[BOS]): token(BOS, True, special=True),
        str(vocab[EOS]): token(EOS, False, special=True),
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "bos_token": BOS,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": EOS,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": "!",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": EOS,
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": {"pad_token": EOS}}


def short_config():
    return {"tokenizer_config.json": {"model_max_length": 16, "pad_token": "!", "bos_token": BOS}}


def inversion_config(vocab):
    files = sd1_config()
    return files | {"added_tokens.json": {"<cat-toy>": len(vocab), "<Zed>": len(vocab) + 1}}


def extra_config():
    config = {"model_max_length": 77, "mask_token": "?"}
    return {"tokenizer_config.json": config | {"additional_special_tokens": ["cat</w>", "a</w>"]}}


def older_extra_config(vocab):
    """As `extra_config` in the older way, with a special token that was added after training."""
    more = {"additional_special_tokens": ["cat</w>", "a</w>"], "pad_token": "<pad>"}
    return {
        "tokenizer_config.json": {"model_max_length": 77},
        "special_tokens_map.json": more,
        "added_tokens.json": {"<pad>": len(vocab), "<toy>": len(vocab) + 1},
    }


def config_files(name, vocab):
    return {
        "bare": dict,
        "sd1": sd1_config,
        "sd2": sd2_config,
        "sdxl2": lambda: sdxl2_config(vocab),
        "short": short_config,
        "inversion": lambda: inversion_config(vocab),
        "extra": extra_config,
        "older extra": lambda: older_extra_config(vocab),
    }[name]()


CONFIGS = ["bare", "sd1", "sd2", "sdxl2", "short", "inversion", "extra", "older extra"]


def write_json(folder, files):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_vocabulary(folder):
    vocab, merges = train_vocabulary()
    write_json(folder, {"vocab.json": vocab})
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tokenizer_json(folder, **changes):
    """As in openai/clip-vit-large-patch14; ``changes`` replaces sections of it."""
    vocab, merges = train_vocabulary()
    words = {"Regex": r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            token(BOS, True, id=vocab[BOS], special=True),
            token(EOS, False, id=vocab[EOS], special=True),
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": words, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [EOS, vocab[EOS]],
            "cls": [BOS, vocab[BOS]],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": EOS,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": [f"{first} {second}" for first, second in merges],
        },
    }
    write_json(folder, {"tokenizer.json": content | changes})


BAKED = {
    "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 3,
        "pad_type_id": 0,
        "pad_token": "$",
    },
}
