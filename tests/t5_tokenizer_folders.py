"""T5 tokenizer folders around a vocabulary trained here, in both layouts."""

import functools
import json
import struct
from pathlib import Path

import transformers
from character_maps import compile_characters
from tokenizer_folders import SAMPLE
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

UNKNOWN, CONTROL, NORMAL = 2, 3, 1  # SentencePiece's types of pieces


@functools.cache
def train_pieces() -> tuple[tuple[str, float], ...]:
    """Pieces and scores laid out as google/t5-v1_1-xxl's, trained on SAMPLE."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAMPLE.splitlines() * 3, trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    # Single precision, as SentencePiece keeps them.
    return tuple(
        (piece, struct.unpack("<f", struct.pack("<f", score))[0]) for piece, score in vocabulary
    )


def list_pieces(*, pads_with_one: bool = False) -> list[tuple[str, float]]:
    """Pieces and scores; the first two may have changed places."""
    padding, end, *others = train_pieces()
    return [end, padding, *others] if pads_with_one else [padding, end, *others]


def make_reference(
    *, pads_with_one: bool = False, with_characters: bool = False
) -> transformers.T5Tokenizer:
    """The tokenizer of transformers; its vocabulary has the sentinels at the end."""
    sentinels = [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    return transformers.T5Tokenizer(
        vocab=[*list_pieces(pads_with_one=pads_with_one), *sentinels],
        _spm_precompiled_charsmap=compile_characters() if with_characters else None,
    )


def write_t5_folder(folder: Path, **options: bool) -> Path:
    """Write ``tokenizer.json`` and what transformers writes beside it."""
    make_reference(**options).save_pretrained(folder)
    return folder


def write_sentencepiece(
    folder: Path,
    *,
    model_type: int = 1,
    unknown: int = UNKNOWN,
    pads_with_one: bool = False,
    with_characters: bool = False,
    characters: bytes | None = None,
) -> Path:
    """Write ``spiece.model`` alone, as SentencePiece does; published ones map characters."""
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": unknown}
    pieces = [
        _bytes(1, piece.encode()) + _float(2, score) + _number(3, kinds.get(piece, NORMAL))
        for piece, score in list_pieces(pads_with_one=pads_with_one)
    ]
    parts = [*(_bytes(1, each) for each in pieces), _bytes(2, _number(3, model_type) + _NO_BEGIN)]
    if with_characters:
        characters = compile_characters()
    if characters is not None:
        # The name, and that a space is put before a text, and that others are taken out.
        more = _bytes(1, b"nmt_nfkc"), _bytes(2, characters), _number(3, 1), _number(4, 1)
        parts.append(_bytes(3, b"".join(more)))
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(b"".join(parts))
    return folder


def _varint(value: int) -> bytes:
    rest, low = divmod(value, 128)
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


_NO_BEGIN = _number(41, 2**64 - 1)  # the id of the begin token is -1, as in T5: ten bytes
