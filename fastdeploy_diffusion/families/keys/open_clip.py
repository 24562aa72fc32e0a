"""Names of OpenCLIP's text tower in single files: SD 2.x and SDXL's second text encoder."""

from collections.abc import Mapping, Sequence

from fastdeploy_diffusion.families.keys.rules import KeyRule, ignore, rename, rename_layers

_BLOCK = r"transformer\.resblocks\.(\d+)"
_LAYERS: Mapping[str, str] = {
    r"token_embedding": "embeddings.token_embedding",
    r"ln_final": "final_layer_norm",
    rf"{_BLOCK}\.ln_1": r"encoder.layers.\1.layer_norm1",
    rf"{_BLOCK}\.ln_2": r"encoder.layers.\1.layer_norm2",
    rf"{_BLOCK}\.mlp\.c_fc": r"encoder.layers.\1.mlp.fc1",
    rf"{_BLOCK}\.mlp\.c_proj": r"encoder.layers.\1.mlp.fc2",
    rf"{_BLOCK}\.attn\.out_proj": r"encoder.layers.\1.self_attn.out_proj",
}

OPEN_CLIP_RULES: Sequence[KeyRule] = (
    *rename_layers(_LAYERS),
    rename(
        rf"{_BLOCK}\.attn\.in_proj_(weight|bias)",
        r"encoder.layers.\1.self_attn.q_proj.\2",
        r"encoder.layers.\1.self_attn.k_proj.\2",
        r"encoder.layers.\1.self_attn.v_proj.\2",
    ),
    rename("positional_embedding", "embeddings.position_embedding.weight"),
    # OpenCLIP multiplies by the matrix as stored; a linear layer by its transpose.
    rename("text_projection", "text_projection.weight", transposed=True),
    # The temperature and the causal mask (a constant) of contrastive training.
    ignore("logit_scale|attn_mask"),
)

# SD 2.x conditions on the last but one layer, so the last of the 24 and the projection are unused.
OPEN_CLIP_PENULTIMATE_RULES: Sequence[KeyRule] = (
    ignore(r"transformer\.resblocks\.23\..+"),
    ignore("text_projection"),
    *OPEN_CLIP_RULES,
)
