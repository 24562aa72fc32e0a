"""CLIP's byte-pair tokenizer: prompts to the token ids that a text encoder was trained on.

The ids equal those of transformers' ``CLIPTokenizer``, truncated and padded to ``max_length``,
which is how diffusers calls it. Source: Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021, section 2.4.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.request_fields import MOST_CHUNKS
from fastdeploy_diffusion.shown import show
from fastdeploy_diffusion.tokenizers.chunks import Chunk, Token, split_into_chunks
from fastdeploy_diffusion.tokenizers.files import WORD_END, TokenizerFiles, read_tokenizer_files
from fastdeploy_diffusion.tokenizers.texts import TokenizedPrompts, check_texts, tokenize
from fastdeploy_diffusion.tokenizers.weighted_text import read_weights


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
        self._comma_id = files.tokenizer.token_to_id("," + WORD_END)

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
        input_ids = np.empty((len(texts), self.max_length), np.int64)
        truncated = []
        for row, text in zip(input_ids, texts, strict=True):
            # One by one: encode_batch would start threads, which do not survive a server's fork.
            tokens, room = tokenize(self._tokenize, text, self.max_length), self.max_length - 2
            kept, cut = tokens.ids[:room], tokens.ids[room:]
            row[:] = self._frame(kept)
            truncated.append(self._decode(cut))
            tokens.warn_of_cut(f"the text encoder reads {room}", room, truncated[-1])
        return TokenizedPrompts(input_ids, tuple(truncated))

    def encode_weighted(self, text: str) -> tuple[Chunk, ...]:
        """Turn a prompt with weights into as many chunks as it needs; nothing is cut off.

        Raises:
            RequestError: It is not Unicode text, a weight is no number, or it needs more than
                `MOST_CHUNKS`.
        """
        check_texts([text])
        room = self.max_length - 2
        stretches, left = [], room * MOST_CHUNKS
        for parts in read_weights(text):
            tokens: list[Token] = []
            for part in parts:
                ids = tokenize(self._tokenize, part.text, max(left, 1)).ids
                tokens += [Token(each, part.weight) for each in ids]
                left -= len(ids)
                if left < 0:
                    raise _refuse_length(text, room)
            stretches.append(tokens)
        chunks = split_into_chunks(stretches, room, self._comma_id)
        if len(chunks) > MOST_CHUNKS:
            raise _refuse_length(text, room)
        return tuple(self._make_chunk(each) for each in chunks)

    def _make_chunk(self, tokens: Sequence[Token]) -> Chunk:
        row = np.array(self._frame([each.id for each in tokens]), np.int64)
        weights = [each.weight for each in tokens]
        if all(weight == 1 for weight in weights):
            return Chunk(row.tobytes())
        padding = [1.0] * (self.max_length - len(weights) - 1)
        return Chunk(row.tobytes(), (1.0, *weights, *padding))

    def _frame(self, ids: Sequence[int]) -> list[int]:
        """Put ids between begin and end, and fill up with padding."""
        padding = [self.pad_id] * (self.max_length - len(ids) - 2)
        return [self.bos_id, *ids, self.eos_id, *padding]

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text.replace(WORD_END, " ").strip()


def _refuse_length(text: str, room: int) -> RequestError:
    return RequestError(
        f"the prompt {show(text)} needs more than {MOST_CHUNKS} chunks of {room} tokens",
        allowed=f"up to {MOST_CHUNKS} chunks, {MOST_CHUNKS * room} tokens",
        fix="shorten it, or leave out BREAK",
    )
