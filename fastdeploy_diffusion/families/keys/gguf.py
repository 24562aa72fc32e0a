"""Names of T5 in GGUF files, which are those of llama.cpp (``gguf/tensor_mapping.py``)."""

from collections.abc import Mapping

from fastdeploy_diffusion.families.keys.rules import KeyRule, rename

_BLOCK = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
_NAMES: Mapping[str, str] = {
    r"token_embd": "shared",
    r"enc\.output_norm": "encoder.final_layer_norm",
    **{rf"enc\.blk\.(\d+)\.{old}": rf"encoder.block.\1.{new}" for old, new in _BLOCK.items()},
}

GGUF_T5_RULES: tuple[KeyRule, ...] = tuple(
    rename(rf"{old}\.weight", f"{new}.weight") for old, new in _NAMES.items()
)
