"""Names in diffusers folders, where they differ from the canonical ones."""

from collections.abc import Mapping, Sequence

from fastdeploy_diffusion.families.keys.rules import KeyRule, ignore, rename, rename_layers

# Text encoders were saved with the tower under `text_model.` until transformers 5.6, and with the
# constant `position_ids` (0, 1, 2 …) until 4.31.
CLIP_RULES: Sequence[KeyRule] = (
    ignore(r"(?:text_model\.)?embeddings\.position_ids"),
    rename(r"text_model\.(.+)", r"\1"),
)

# Likewise, of vision towers.
CLIP_VISION_RULES: Sequence[KeyRule] = (
    ignore(r"vision_model\.embeddings\.position_ids"),
    rename(r"vision_model\.(.+)", r"\1"),
)

# Names from before diffusers 0.15, which published SD 1.x and 2.x files still have.
_OLD_VAE_ATTENTION: Mapping[str, str] = {
    rf"(encoder|decoder)\.mid_block\.attentions\.0\.{old}": rf"\1.mid_block.attentions.0.{new}"
    for old, new in {
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "proj_attn": "to_out.0",
    }.items()
}
VAE_RULES: Sequence[KeyRule] = rename_layers(_OLD_VAE_ATTENTION, squeezed=True)

# The encoder's name for the embedding that it shares with the decoder, kept beside the other.
T5_RULES: Sequence[KeyRule] = (ignore(r"encoder\.embed_tokens\.weight"),)
