"""The config files beside a CLIP vocabulary: special tokens, added tokens, length."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import damage, find_file
from fastdeploy_diffusion.shown import show

_CONTEXT_LENGTH = 77  # of every published CLIP; folders without tokenizer_config.json rely on it
_UNSET_LENGTH = int(1e30)  # transformers writes this where model_max_length was never set

# In the order in which transformers registers them; the last three are rarely set.
SPECIAL_TOKENS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "sep_token": None,
    "pad_token": "<|endoftext|>",
    "cls_token": None,
    "mask_token": None,
}
# The library ignores others, but for a line on stdout.
_FLAGS = {"content", "single_word", "lstrip", "rstrip", "normalized", "special"}
# Keys of tokenizer_config.json that must have the value that CLIP has.
_FIXED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "add_bos_token": (True,),
    "add_eos_token": (True,),
    "add_prefix_space": (False,),
    "do_lower_case": (True,),
    "init_inputs": ([],),
    "padding_side": ("right",),
    "split_special_tokens": (False,),
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "truncation_side": ("right",),
}
# Bookkeeping, settings of decoding, and call defaults that padding to max_length replaces.
_INERT_OPTIONS = {
    *("backend", "is_local", "local_files_only", "name_or_path", "processor_class", "use_fast"),
    *("special_tokens_map_file", "tokenizer_file", "model_input_names", "transformers_version"),
    *("clean_up_tokenization_spaces", "errors"),
    *("max_length", "pad_to_multiple_of", "pad_token_type_id", "stride", "truncation_strategy"),
}


@dataclass
class TokenizerOptions:
    """The options of a config file.

    Attributes:
        named: Special tokens by key, such as "pad_token".
        extra: Special tokens without a name.
        added: Ids and tokens of ``added_tokens_decoder``; None where the file has none.
        max_length: Tokens per prompt, begin and end included.
    """

    named: dict[str, AddedToken] = field(default_factory=dict)
    extra: list[AddedToken] = field(default_factory=list)
    added: dict[int, AddedToken] | None = None
    max_length: int = _CONTEXT_LENGTH


def read_options(file: Path) -> TokenizerOptions:
    """Read tokenizer_config.json or special_tokens_map.json, which need not exist.

    Raises:
        CheckpointError: the file is damaged, or sets an option that is not implemented.
    """
    options = TokenizerOptions()
    for key, value in read_optional(file).items():
        if SPECIAL_TOKENS.get(key) or (key in SPECIAL_TOKENS and value is not None):
            options.named[key] = _parse_token(file, key, value)
        elif value is None or key in _INERT_OPTIONS:
            continue
        elif key in ("additional_special_tokens", "extra_special_tokens") and type(value) is list:
            options.extra += [_parse_token(file, key, token) for token in value]
        elif key == "added_tokens_decoder" and type(value) is dict:
            options.added = {
                _parse_id(file, index): _parse_token(file, key, token)
                for index, token in value.items()
            }
        elif key == "model_max_length":
            options.max_length = _parse_length(file, value)
        elif value not in _FIXED_OPTIONS.get(key, ()):
            raise CheckpointError(
                f"{file}: {key[:80]} = {show(value)} is not implemented for CLIP",
                allowed=" or ".join(map(json.dumps, _FIXED_OPTIONS.get(key, ()))),
                fix="remove the key if the token ids do not depend on it",
            )
    return options


def _parse_token(file: Path, key: str, value: Any) -> AddedToken:
    if type(value) is str and value:
        return AddedToken(value, special=True)
    try:
        flags = {name: flag for name, flag in value.items() if name != "__type"}
        flags.setdefault("special", key != "added_tokens_decoder")
        if flags["content"] and flags.keys() <= _FLAGS:
            return AddedToken(**flags)
    except (AttributeError, KeyError, TypeError):
        pass
    raise damage(file, f"{key} is {show(value)}, not a token")


def _parse_id(file: Path, value: Any) -> int:
    """Read an id: a number in added_tokens.json, and a key, a text, in added_tokens_decoder."""
    if type(value) is str and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if type(value) is not int or not 0 <= value < 10**9:
        raise damage(file, f"the id of an added token is {show(value)}")
    return value


def _parse_length(file: Path, value: Any) -> int:
    if value == _UNSET_LENGTH:
        return _CONTEXT_LENGTH
    if type(value) is not int or not 3 <= value < 2**16:
        raise CheckpointError(
            f"{file}: model_max_length is {show(value)}",
            allowed="an integer from 3 to 65535 (77 in every published CLIP)",
        )
    return value


def read_added_tokens(file: Path, special: set[str]) -> dict[int, AddedToken]:
    """Read added_tokens.json, {text: id}: the older form of ``added_tokens_decoder``.

    Raises:
        CheckpointError: the file is damaged.
    """
    return {
        _parse_id(file, index): AddedToken(
            text, special=text in special, normalized=text not in special
        )
        for text, index in read_optional(file).items()
    }


def read_optional(file: Path) -> dict[str, Any]:
    """Read a JSON object; {} where there is no such file.

    Raises:
        CheckpointError: The file holds something else, or cannot be read.
    """
    return read_json_object(file) if find_file(file) else {}
