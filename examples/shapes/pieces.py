"""The unigram vocabulary of the world's captions, in T5's format."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from shapes.folder import write_json
from shapes.world import COLOURS, SHAPES, SIZES, all_scenes

PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_SPECIAL = (PADDING, END, UNKNOWN)


def write_t5_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and its config.

    Every word of both languages is one piece, and nothing else is known: a Chinese caption, which
    has no spaces, is then split into its words, whatever their combination.
    """
    pieces = [*((each, 0.0) for each in _SPECIAL), *((word, -2.0) for word in _list_words())]
    tokenizer = Tokenizer(models.Unigram(pieces, pieces.index((UNKNOWN, 0.0)), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in _SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A {END} $B {END}",
        special_tokens=[(END, _SPECIAL.index(END))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "eos_token": END,
            "extra_ids": 0,
            "pad_token": PADDING,
            "tokenizer_class": "T5Tokenizer",
            "unk_token": UNKNOWN,
        },
    )


def _list_words() -> list[str]:
    """English words begin with the mark of a space, Chinese ones do not; and the mark itself."""
    english = {word for scene in all_scenes() for word in scene.caption("en").split()}
    chinese = [word for word, _ in COLOURS.values()] + [*SHAPES.values(), *SIZES.values()]
    return ["▁", *sorted(f"▁{word}" for word in english | {"an"}), *chinese, "背景上的"]
