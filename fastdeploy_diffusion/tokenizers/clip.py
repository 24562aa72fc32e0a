"""CLIP's byte-pair tokenizer: prompts to the token ids that a text encoder was trained on.

The ids equal those of transformers' ``CLIPTokenizer``, truncated and padded to ``max_length``,
which is how diffusers calls it. Source: Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021, section 2.4.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastdeploy_diffusion.tokenizers.files import WORD_END, TokenizerFiles, read_tokenizer_files
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts, check_texts, tokenize


class CLIPTokenizer:
    """Tokenizer of CLIP text encoders (SD 1.x, SD 2.x, both of SDXL, the first of Flux).

    Attributes:
        max_length: Tokens per prompt, begin and end included (77).
        vocab_size: Number of known tokens, added ones included.
        largest_id: Of all of them.
        bos_id: Id of the begin token.
        eos_id: Id of the end token.
        pad_id: Id of the padding: the end token in SD 1.x, "!" (0) in SD 2.x.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        self._tokenizer = files.tokenizer
        self.max_length = files.max_length
        self.vocab_size = files.tokenizer.get_vocab_size()
        self.largest_id = max(files.tokenizer.get_vocab().values())
        self.bos_id, self.eos_id, self.pad_id = files.bos_id, files.eos_id, files.pad_id

    @classmethod
    def from_folder(cls, path: str | Path) -> "CLIPTokenizer":
        """Read the ``tokenizer`` folder of a checkpoint.

        Args:
            path: Holds ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``; beside them
                ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json``
                where there are any. As in transformers, ``tokenizer.json`` wins over
                ``vocab.json``, and a ``tokenizer_config.json`` with ``added_tokens_decoder``
                replaces the last two files.

        Raises:
            CheckpointError: a file is missing or damaged, or asks for something that is not
                implemented.
        """
        return cls(read_tokenizer_files(Path(path)))

    def encode(self, texts: Sequence[str]) -> TokenizedPrompts:
        """Turn prompts into ids, each padded or cut to ``max_length``.

        Args:
            texts: Prompts; "" is the empty prompt of classifier-free guidance.

        Returns:
            The ids, and the truncated ends.

        Raises:
            RequestError: no prompts, one bare string, or a prompt that is not Unicode text.

        Warns:
            TruncationWarning: per prompt that is too long, with what was cut off, shortened.
        """
        check_texts(texts)
        input_ids = np.full((len(texts), self.max_length), self.pad_id, np.int64)
        truncated = []
        for row, text in zip(input_ids, texts, strict=True):
            # One by one: encode_batch would start threads, which do not survive a server's fork.
            tokens, room = tokenize(self._tokenize, text, self.max_length), self.max_length - 2
            kept, cut = tokens.ids[:room], tokens.ids[room:]
            row[: len(kept) + 2] = [self.bos_id, *kept, self.eos_id]
            truncated.append(self._decode(cut))
            tokens.warn_of_cut(f"the text encoder reads {room}", room, truncated[-1])
        return TokenizedPrompts(input_ids, tuple(truncated))

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip()
