"""The vocabulary of a T5 tokenizer folder, in either layout, as a ``tokenizers.Tokenizer``."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.model_files import damage, find_file, find_folder
from fastdeploy_diffusion.tokenizers.character_map import check_character_map
from fastdeploy_diffusion.tokenizers.sentencepiece_file import read_sentencepiece
from fastdeploy_diffusion.tokenizers.tokenizer_json import load_tokenizer_json

END, PADDING = "</s>", "<pad>"

_LAYOUTS = "a folder with tokenizer.json, or with spiece.model"
# T5's sentinels, which stand behind the pieces, the last one first.
_SENTINELS = [f"<extra_id_{index}>" for index in reversed(range(100))]


def read_t5_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer folder; see ``T5Tokenizer.from_folder``.

    Args:
        folder: Holds ``tokenizer.json`` or ``spiece.model``; the first wins, as in transformers.

    Raises:
        CheckpointError: A file is missing or damaged, or holds another kind of tokenizer.
    """
    if not find_folder(folder):
        raise CheckpointError(f"there is no tokenizer folder {folder}", allowed=_LAYOUTS)
    if find_file(folder / "tokenizer.json"):
        return _load_tokenizer(folder / "tokenizer.json")
    if find_file(folder / "spiece.model"):
        return _build_tokenizer(folder / "spiece.model")
    raise CheckpointError(
        f"{folder} has neither tokenizer.json nor spiece.model",
        allowed=_LAYOUTS,
        fix="use the tokenizer_2 folder of this checkpoint",
    )


def _load_tokenizer(file: Path) -> Tokenizer:
    def check(model: Any) -> None:
        if not isinstance(model, models.Unigram):
            raise CheckpointError(
                f"{file} holds no T5 tokenizer, but one of the kind {type(model).__name__}",
                allowed="Unigram",
                fix="use the tokenizer_2 folder of this checkpoint",
            )

    return load_tokenizer_json(file, check, [END])


def _build_tokenizer(file: Path) -> Tokenizer:
    """Read ``spiece.model``, SentencePiece's format, without T5's sentinels."""
    pieces = read_sentencepiece(file)
    known = {piece for piece, _ in pieces.vocabulary}
    vocabulary = [
        *pieces.vocabulary,
        *((each, 0.0) for each in _SENTINELS if each not in known),
    ]
    if pieces.characters:
        check_character_map(file, pieces.characters)
    try:
        tokenizer = Tokenizer(models.Unigram(vocabulary, pieces.unknown_id, byte_fallback=False))
        if pieces.characters:
            tokenizer.normalizer = normalizers.Precompiled(pieces.characters)
    except Exception as error:  # the library raises nothing more specific
        raise damage(file, str(error)) from None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = [END, pieces.vocabulary[pieces.unknown_id][0], PADDING, *_SENTINELS]
    tokenizer.add_special_tokens(
        [AddedToken(each, normalized=False) for each in special if each in dict(vocabulary)]
    )
    return tokenizer
