"""The vocabulary of a CLIP tokenizer folder, in either layout, as a ``tokenizers.Tokenizer``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import damage, find_file, find_folder, read_text
from fastdeploy_diffusion.tokenizers.options import (
    SPECIAL_TOKENS,
    read_added_tokens,
    read_options,
)
from fastdeploy_diffusion.tokenizers.tokenizer_json import load_tokenizer_json

WORD_END = "</w>"

_LAYOUTS = "a folder with tokenizer.json, or with vocab.json and merges.txt"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a tokenizer folder.

    Attributes:
        tokenizer: Normalises, splits and merges; adds no begin, end or padding by itself.
        bos_id: Id of the begin token.
        eos_id: Id of the end token.
        pad_id: Id of the padding.
        max_length: Tokens per prompt, begin and end included.
    """

    tokenizer: Tokenizer
    bos_id: int
    eos_id: int
    pad_id: int
    max_length: int


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Read a tokenizer folder; see ``CLIPTokenizer.from_folder``.

    Args:
        folder: Holds ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for something that is not
            implemented.
    """
    if not find_folder(folder):
        raise CheckpointError(f"there is no tokenizer folder {folder}", allowed=_LAYOUTS)
    options = read_options(folder / "tokenizer_config.json")
    if options.added is None:
        older = read_options(folder / "special_tokens_map.json")
        options.named |= older.named
        options.extra += older.extra
    named = {
        key: options.named.get(key) or AddedToken(text, special=True)
        for key, text in SPECIAL_TOKENS.items()
        if key in options.named or text is not None
    }
    special = [*named.values(), *options.extra]
    names = {token.content for token in special}
    added = options.added
    if added is None:
        added = read_added_tokens(folder / "added_tokens.json", names)
    if find_file(folder / "tokenizer.json"):
        frame = [named["bos_token"].content, named["eos_token"].content]
        tokenizer = _load_tokenizer(folder / "tokenizer.json", frame)
        if options.added is None:
            # tokenizer.json knows the flags that added_tokens.json leaves out.
            flagged = {t.content: t for t in tokenizer.get_added_tokens_decoder().values()}
            added = {index: flagged.get(t.content, t) for index, t in added.items()}
    else:
        known = names | {token.content for token in added.values()}
        tokenizer = _build_tokenizer(folder, named["unk_token"].content, known)
    _register_added(folder, tokenizer, added, names)
    _register_special(folder, tokenizer, special)
    vocab = tokenizer.get_vocab()
    ids = {key: vocab[token.content] for key, token in named.items()}
    return TokenizerFiles(
        tokenizer, ids["bos_token"], ids["eos_token"], ids["pad_token"], options.max_length
    )


def _load_tokenizer(file: Path, frame: list[str]) -> Tokenizer:
    def check(model: Any) -> None:
        if not isinstance(model, models.BPE) or model.end_of_word_suffix != WORD_END:
            raise CheckpointError(
                f"{file} holds no CLIP tokenizer", allowed=f"byte-pair encoding with {WORD_END!r}"
            )
        if model.dropout:
            raise CheckpointError(
                f"{file}: dropout = {model.dropout} would make token ids random", allowed="null"
            )

    tokenizer = load_tokenizer_json(file, check, frame, may_be_bare=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _build_tokenizer(folder: Path, unk: str, known: set[str]) -> Tokenizer:
    """Read ``vocab.json`` and ``merges.txt``, OpenAI's format; ``known`` tokens need no merge."""
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    for file in (vocab_file, merges_file):
        if not find_file(file):
            raise CheckpointError(f"there is no {file}", allowed=_LAYOUTS)
    vocab = read_json_object(vocab_file)
    ids = vocab.values()
    if not all(type(index) is int for index in ids) or set(ids) != set(range(len(vocab))):
        raise damage(vocab_file, "token ids are not the numbers from 0 on")
    merges = _read_merges(merges_file)
    made = {first + second for first, second in merges} | known
    unmade = [t for t in vocab if t not in made and len(t.removesuffix(WORD_END)) != 1]
    if unmade:
        raise damage(
            merges_file,
            f"no merge makes {len(unmade)} tokens of vocab.json, such as {unmade[-1]!r}",
        )
    try:
        model = models.BPE(vocab=vocab, merges=merges, unk_token=unk, end_of_word_suffix=WORD_END)
    except Exception as error:  # the library raises nothing more specific
        raise damage(merges_file, str(error)) from None
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_merges(file: Path) -> list[tuple[str, str]]:
    """Pairs of symbols, most frequent first; the first line may be "#version: 0.2"."""
    merges = []
    # Not splitlines(): it also splits at characters that stand for bytes here.
    for number, line in enumerate(read_text(file).replace("\r\n", "\n").split("\n"), start=1):
        if not line or line.startswith("#version"):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise damage(file, f"line {number} is {line!r}, not two symbols")
        merges.append((pair[0], pair[1]))
    return merges


def _register_added(
    folder: Path, tokenizer: Tokenizer, added: dict[int, AddedToken], special: set[str]
) -> None:
    """Register the tokens that were added after training, to be matched whole."""
    for index, token in sorted(added.items()):
        token.special = token.special or token.content in special
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != index:
            raise _mismatch(
                folder,
                f"the added token {token.content!r} should have the id {index} but gets "
                f"{tokenizer.token_to_id(token.content)}",
            )


def _register_special(folder: Path, tokenizer: Tokenizer, special: list[AddedToken]) -> None:
    """Register the special tokens, to be matched whole.

    A token's flags are those of its registration as an added token, or else of its last mention:
    whether "<|ENDOFTEXT|>" ends a prompt depends on it.
    """
    registered = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in special:
        if tokenizer.token_to_id(token.content) is None:
            raise _mismatch(folder, f"the special token {token.content!r} is not in the vocabulary")
        if token.content not in registered:
            token.special = True
            tokenizer.add_tokens([token])


def _mismatch(folder: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: {problem}", fix="download the tokenizer again, all files from one place"
    )
