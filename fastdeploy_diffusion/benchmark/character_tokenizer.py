"""A T5 tokenizer of single characters, for random weights: T5's own cannot be shipped."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

_SPECIAL = ("<pad>", "</s>", "<unk>")
_SPACE = "▁"


def write_character_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` as T5's is laid out, with ASCII's printable characters as pieces.

    Args:
        folder: Made if missing.
    """
    characters = [_SPACE, *map(chr, range(ord("!"), ord("~") + 1))]
    vocabulary = [*((each, 0.0) for each in _SPECIAL), *((each, -1.0) for each in characters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, _SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", _SPECIAL.index("</s>"))]
    )
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in _SPECIAL])
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": 512,
        "extra_ids": 0,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
