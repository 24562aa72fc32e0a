"""Features of weighted prompts in plain torch, with the text encoders of transformers.

Written after the rules of AUTOMATIC1111's web UI, step by step and without batches or caches:
parts are tokenized one by one; chunks are filled, and end after a comma near the end; every chunk
is encoded with begin, end and padding; features are multiplied by the weights, and the mean
restored; chunks are joined along the tokens. The pooled vector is that of the first chunk.
"""

from typing import NamedTuple

import torch

BREAK = "BREAK"


class Features(NamedTuple):
    """Of one prompt: (1, T, D) and (1, P)."""

    tokens: torch.Tensor
    pooled: torch.Tensor


def fill_chunks(tokenizer, parts, backtrack=20):
    """[[(id, weight)]] of parts, (text, weight) or BREAK."""
    room, comma = tokenizer.model_max_length - 2, tokenizer.convert_tokens_to_ids(",</w>")
    done, chunk, last_comma = [], [], -1
    for part in parts:
        if part == BREAK:
            done.append(chunk)
            chunk, last_comma = [], -1
            continue
        text, weight = part
        for token in tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]:
            is_full = len(chunk) == room
            if token == comma:
                last_comma = len(chunk)
            elif is_full and last_comma >= 0 and room - last_comma <= backtrack:
                done.append(chunk[: last_comma + 1])
                chunk, last_comma, is_full = chunk[last_comma + 1 :], -1, False
            if is_full:
                done.append(chunk)
                chunk, last_comma = [], -1
            chunk.append((token, weight))
    return [*done, chunk] if chunk or not done else done


def encode(tokenizer, encoder, parts, *, chunks, layer):
    """Encode a prompt, filled up with empty chunks to a number.

    Args:
        layer: Of the hidden states; ``None`` for the last one with its LayerNorm.
    """
    filled = fill_chunks(tokenizer, parts)
    joined, pooled = [], []
    for chunk in [*filled, *[[]] * (chunks - len(filled))]:
        padding = tokenizer.model_max_length - 2 - len(chunk)
        ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * padding
        weights = torch.tensor([1.0, *(weight for _, weight in chunk), *[1.0] * (padding + 1)])
        with torch.no_grad():
            found = encoder(torch.tensor([ids]), output_hidden_states=True)
        z = found.last_hidden_state if layer is None else found.hidden_states[layer]
        weighted = z * weights[None, :, None]
        joined.append(weighted * (z.mean() / weighted.mean()))
        pooled.append(found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output)
    return Features(torch.cat(joined, 1), pooled[0])
