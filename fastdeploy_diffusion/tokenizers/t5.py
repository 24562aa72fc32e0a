"""T5's unigram tokenizer: prompts to the token ids that a text encoder was trained on.

The ids equal those of transformers' ``T5Tokenizer``, truncated and padded, which is how diffusers
calls it. Source: Kudo, "Subword Regularization", 2018; Raffel et al., 2020, section 2.2.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.tokenizers.t5_files import END, PADDING, read_t5_tokenizer
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts, check_texts, tokenize


class T5Tokenizer:
    """Tokenizer of T5 text encoders (the second of Flux).

    Args:
        tokenizer: Normalises and splits; ``from_folder`` reads it.

    Attributes:
        vocab_size: Number of known tokens, added ones included.
        largest_id: Of all of them.
        eos_id: Id of the end token.
        pad_id: Id of the padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        ids = tokenizer.get_vocab()
        self.largest_id = max(ids.values())
        self.eos_id, self.pad_id = ids[END], ids[PADDING]

    @classmethod
    def from_folder(cls, path: str | Path) -> "T5Tokenizer":
        """Read the ``tokenizer_2`` folder of a checkpoint.

        Args:
            path: Holds ``tokenizer.json`` or, where there is none, ``spiece.model``.

        Raises:
            CheckpointError: The file is missing or damaged, or holds another kind of tokenizer.
        """
        tokenizer = read_t5_tokenizer(Path(path))
        missing = [token for token in (END, PADDING) if tokenizer.token_to_id(token) is None]
        if missing:
            raise CheckpointError(
                f"{path}: the tokenizer does not know {' and '.join(missing)}",
                fix="use the tokenizer_2 folder of this checkpoint",
            )
        return cls(tokenizer)

    def encode(self, texts: Sequence[str], max_length: int) -> TokenizedPrompts:
        """Turn prompts into ids, each padded or cut to a length.

        Args:
            max_length: Tokens per prompt, the end token included: diffusers'
                ``max_sequence_length``.

        Returns:
            The ids, and the truncated ends.

        Raises:
            RequestError: No prompts, one bare string, or a prompt that is not Unicode text.

        Warns:
            TruncationWarning: Per prompt that is too long, with what was cut off, shortened.
        """
        check_texts(texts)
        input_ids = np.full((len(texts), max_length), self.pad_id, np.int64)
        truncated = []
        for row, text in zip(input_ids, texts, strict=True):
            # One by one: encode_batch would start threads, which do not survive a server's fork.
            tokens, room = tokenize(self._tokenize, text, max_length), max_length - 1
            kept, cut = tokens.ids[:room], tokens.ids[room:]
            row[: len(kept) + 1] = [*kept, self.eos_id]
            truncated.append(self._tokenizer.decode(cut, skip_special_tokens=False))
            reads = f"max_sequence_length leaves {room} to it"
            tokens.warn_of_cut(reads, room, truncated[-1])
        return TokenizedPrompts(input_ids, tuple(truncated))

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
