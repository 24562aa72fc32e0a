"""``tokenizer.json``, the format of the ``tokenizers`` library: a whole tokenizer in one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.json_object import read_json_object
from fastdeploy_diffusion.model_files import damage, read_text
from fastdeploy_diffusion.tokenizers.character_map import check_normalizer

# In no vocabulary, so that a damaged tokenizer fails here, when it is read.
_UNCOMMON_TEXT = "\U000f0000 \x07"


def load_tokenizer_json(
    file: Path, check_model: Callable[[Any], None], frame: list[str], *, may_be_bare: bool = False
) -> Tokenizer:
    """Load the file without its truncation and padding, which are done here.

    Args:
        check_model: Refuses another kind of model.
        frame: The tokens of an empty prompt, which a post-processor makes.
        may_be_bare: Whether there may be no post-processor.

    Raises:
        CheckpointError: It is damaged, or another kind of tokenizer.
    """
    check_normalizer(file, read_json_object(file).get("normalizer"))
    try:
        tokenizer = Tokenizer.from_str(read_text(file))
        tokenizer.encode(_UNCOMMON_TEXT)
    except Exception as error:  # the library raises nothing more specific
        raise damage(file, str(error)) from None
    check_model(tokenizer.model)
    for name in ("truncation", "padding"):
        direction = (getattr(tokenizer, name) or {}).get("direction", "right")
        if direction != "right":
            raise CheckpointError(
                f"{file}: {name} on the {direction} is not implemented", allowed="Right"
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    made = tokenizer.encode("").tokens
    if made != frame and not (may_be_bare and tokenizer.post_processor is None):
        raise CheckpointError(
            f"{file}: its post_processor makes {made} of an empty prompt", allowed=f"{frame}"
        )
    return tokenizer
