"""Names of Flux's transformer in the original files, as tables of patterns.

They are those of ``model.py`` and ``modules/layers.py`` in black-forest-labs/flux.
"""

from collections.abc import Mapping

from fastdeploy_diffusion.families.keys.rules import KeyRule, ignore, rename, rename_layers

_DOUBLE = r"double_blocks\.(\d+)"
_SINGLE = r"single_blocks\.(\d+)"
_BLOCK, _SINGLE_BLOCK = r"transformer_blocks.\1", r"single_transformer_blocks.\1"

_EMBEDDERS: Mapping[str, str] = {
    rf"{old}\.{side}_layer": f"time_text_embed.{new}.linear_{number}"
    for old, new in {
        "time_in": "timestep_embedder",
        "vector_in": "text_embedder",
        "guidance_in": "guidance_embedder",
    }.items()
    for side, number in (("in", 1), ("out", 2))
}
_LAYERS: Mapping[str, str] = {
    **_EMBEDDERS,
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    r"final_layer\.linear": "proj_out",
    rf"{_DOUBLE}\.img_mod\.lin": f"{_BLOCK}.norm1.linear",
    rf"{_DOUBLE}\.txt_mod\.lin": f"{_BLOCK}.norm1_context.linear",
    rf"{_DOUBLE}\.img_attn\.proj": f"{_BLOCK}.attn.to_out.0",
    rf"{_DOUBLE}\.txt_attn\.proj": f"{_BLOCK}.attn.to_add_out",
    rf"{_DOUBLE}\.img_mlp\.0": f"{_BLOCK}.ff.net.0.proj",
    rf"{_DOUBLE}\.img_mlp\.2": f"{_BLOCK}.ff.net.2",
    rf"{_DOUBLE}\.txt_mlp\.0": f"{_BLOCK}.ff_context.net.0.proj",
    rf"{_DOUBLE}\.txt_mlp\.2": f"{_BLOCK}.ff_context.net.2",
    rf"{_SINGLE}\.modulation\.lin": f"{_SINGLE_BLOCK}.norm.linear",
    rf"{_SINGLE}\.linear2": f"{_SINGLE_BLOCK}.proj_out",
}
_NORMS: Mapping[str, str] = {
    rf"{_DOUBLE}\.img_attn\.norm\.query_norm": f"{_BLOCK}.attn.norm_q",
    rf"{_DOUBLE}\.img_attn\.norm\.key_norm": f"{_BLOCK}.attn.norm_k",
    rf"{_DOUBLE}\.txt_attn\.norm\.query_norm": f"{_BLOCK}.attn.norm_added_q",
    rf"{_DOUBLE}\.txt_attn\.norm\.key_norm": f"{_BLOCK}.attn.norm_added_k",
    rf"{_SINGLE}\.norm\.query_norm": f"{_SINGLE_BLOCK}.attn.norm_q",
    rf"{_SINGLE}\.norm\.key_norm": f"{_SINGLE_BLOCK}.attn.norm_k",
}

FLUX_RULES: tuple[KeyRule, ...] = (
    *rename_layers(_LAYERS),
    *(rename(rf"{old}\.scale", f"{new}.weight") for old, new in _NORMS.items()),
    rename(
        rf"{_DOUBLE}\.img_attn\.qkv\.(weight|bias)",
        *(rf"{_BLOCK}.attn.to_{letter}.\2" for letter in "qkv"),
    ),
    rename(
        rf"{_DOUBLE}\.txt_attn\.qkv\.(weight|bias)",
        *(rf"{_BLOCK}.attn.add_{letter}_proj.\2" for letter in "qkv"),
    ),
    # Queries, keys, values, and the feed-forward, which is four times as wide.
    rename(
        rf"{_SINGLE}\.linear1\.(weight|bias)",
        *(rf"{_SINGLE_BLOCK}.attn.to_{letter}.\2" for letter in "qkv"),
        rf"{_SINGLE_BLOCK}.proj_mlp.\2",
        slices=((0,), (1,), (2,), (3, 4, 5, 6)),
    ),
    # Shift and scale, which diffusers has the other way round.
    rename(
        r"final_layer\.adaLN_modulation\.1\.(weight|bias)",
        r"norm_out.linear.\1",
        slices=((1, 0),),
    ),
)

# Files with all components keep CLIP's temperature and projection, of which Flux uses neither.
FLUX_CLIP_INERT_RULES: tuple[KeyRule, ...] = (ignore(r"text_projection\.weight"),)
FLUX_INERT_RULES: tuple[KeyRule, ...] = (ignore(r"text_encoders\.(clip_l|t5xxl)\.logit_scale"),)
