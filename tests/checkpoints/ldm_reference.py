"""Names and shapes of single files, derived from how the LDM and SGM code builds its networks.

Written from the structure of `openaimodel.UNetModel`, `model.Encoder`/`Decoder` and
`open_clip.TextTransformer`, apart from the key tables under test.
"""

from dataclasses import dataclass

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class UNetShape:
    channels: int
    multipliers: tuple[int, ...]
    depths: tuple[int, ...]  # transformer blocks at each level, 0 for none
    context: int
    linear: bool  # proj_in and proj_out as linear layers
    vector: int = 0  # width of SDXL's pooled conditioning
    middle: int = 0  # transformer blocks in the middle, where not those of the last level


@dataclass(frozen=True)
class TowerShape:
    width: int
    layers: int
    projection: int
    vocabulary: int = 49408


UNETS = {
    "sd1": UNetShape(320, (1, 2, 4, 4), (1, 1, 1, 0), 768, False),
    "sd2": UNetShape(320, (1, 2, 4, 4), (1, 1, 1, 0), 1024, True),
    "sdxl": UNetShape(320, (1, 2, 4), (0, 2, 10), 2048, True, 2816),
    "sdxl-refiner": UNetShape(384, (1, 2, 4, 4), (0, 4, 4, 0), 1280, True, 2560, middle=4),
}


def add_layer(shapes: Shapes, name: str, *weight: int) -> None:
    shapes[f"{name}.weight"] = weight
    shapes[f"{name}.bias"] = weight[:1]


def _resnet(shapes: Shapes, name: str, old: int, new: int, embedding: int) -> None:
    add_layer(shapes, f"{name}.in_layers.0", old)
    add_layer(shapes, f"{name}.in_layers.2", new, old, 3, 3)
    add_layer(shapes, f"{name}.emb_layers.1", new, embedding)
    add_layer(shapes, f"{name}.out_layers.0", new)
    add_layer(shapes, f"{name}.out_layers.3", new, new, 3, 3)
    if old != new:
        add_layer(shapes, f"{name}.skip_connection", new, old, 1, 1)


def _transformer(shapes: Shapes, name: str, width: int, depth: int, unet: UNetShape) -> None:
    kernel = () if unet.linear else (1, 1)
    add_layer(shapes, f"{name}.norm", width)
    add_layer(shapes, f"{name}.proj_in", width, width, *kernel)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", width), ("attn2", unet.context)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, context)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, context)
            add_layer(shapes, f"{block}.{attention}.to_out.0", width, width)
        add_layer(shapes, f"{block}.ff.net.0.proj", 8 * width, width)
        add_layer(shapes, f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            add_layer(shapes, f"{block}.{norm}", width)
    add_layer(shapes, f"{name}.proj_out", width, width, *kernel)


def ldm_unet(unet: UNetShape) -> Shapes:
    shapes: Shapes = {}
    first, embedding = unet.channels, 4 * unet.channels
    add_layer(shapes, "time_embed.0", embedding, first)
    add_layer(shapes, "time_embed.2", embedding, embedding)
    if unet.vector:
        add_layer(shapes, "label_emb.0.0", embedding, unet.vector)
        add_layer(shapes, "label_emb.0.2", embedding, embedding)
    add_layer(shapes, "input_blocks.0.0", first, 4, 3, 3)
    skips, number, width = [first], 1, first
    for level, (multiplier, depth) in enumerate(zip(unet.multipliers, unet.depths, strict=True)):
        for _ in range(2):
            _resnet(shapes, f"input_blocks.{number}.0", width, first * multiplier, embedding)
            width = first * multiplier
            if depth:
                _transformer(shapes, f"input_blocks.{number}.1", width, depth, unet)
            skips.append(width)
            number += 1
        if level < len(unet.multipliers) - 1:
            add_layer(shapes, f"input_blocks.{number}.0.op", width, width, 3, 3)
            skips.append(width)
            number += 1
    _resnet(shapes, "middle_block.0", width, width, embedding)
    _transformer(shapes, "middle_block.1", width, unet.middle or max(unet.depths[-1], 1), unet)
    _resnet(shapes, "middle_block.2", width, width, embedding)
    number = 0
    for level in reversed(range(len(unet.multipliers))):
        for i in range(3):
            new = first * unet.multipliers[level]
            _resnet(shapes, f"output_blocks.{number}.0", width + skips.pop(), new, embedding)
            width, position = new, 1
            if unet.depths[level]:
                _transformer(shapes, f"output_blocks.{number}.1", width, unet.depths[level], unet)
                position = 2
            if level and i == 2:
                add_layer(shapes, f"output_blocks.{number}.{position}.conv", width, width, 3, 3)
            number += 1
    add_layer(shapes, "out.0", first)
    add_layer(shapes, "out.2", 4, first, 3, 3)
    return shapes


def _vae_resnet(shapes: Shapes, name: str, old: int, new: int) -> None:
    add_layer(shapes, f"{name}.norm1", old)
    add_layer(shapes, f"{name}.conv1", new, old, 3, 3)
    add_layer(shapes, f"{name}.norm2", new)
    add_layer(shapes, f"{name}.conv2", new, new, 3, 3)
    if old != new:
        add_layer(shapes, f"{name}.nin_shortcut", new, old, 1, 1)


def _vae_middle(shapes: Shapes, name: str, width: int) -> None:
    _vae_resnet(shapes, f"{name}.mid.block_1", width, width)
    add_layer(shapes, f"{name}.mid.attn_1.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        add_layer(shapes, f"{name}.mid.attn_1.{projection}", width, width, 1, 1)
    _vae_resnet(shapes, f"{name}.mid.block_2", width, width)


def ldm_vae(channels: int = 128, latents: int = 4) -> Shapes:
    widths = [channels * multiplier for multiplier in (1, 2, 4, 4)]
    shapes: Shapes = {}
    add_layer(shapes, "encoder.conv_in", channels, 3, 3, 3)
    width = channels
    for level, new in enumerate(widths):
        for i in range(2):
            _vae_resnet(shapes, f"encoder.down.{level}.block.{i}", width, new)
            width = new
        if level < 3:
            add_layer(shapes, f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    _vae_middle(shapes, "encoder", width)
    add_layer(shapes, "encoder.norm_out", width)
    add_layer(shapes, "encoder.conv_out", 2 * latents, width, 3, 3)
    add_layer(shapes, "quant_conv", 2 * latents, 2 * latents, 1, 1)
    add_layer(shapes, "post_quant_conv", latents, latents, 1, 1)
    add_layer(shapes, "decoder.conv_in", width, latents, 3, 3)
    _vae_middle(shapes, "decoder", width)
    for level in reversed(range(4)):
        for i in range(3):
            _vae_resnet(shapes, f"decoder.up.{level}.block.{i}", width, widths[level])
            width = widths[level]
        if level:
            add_layer(shapes, f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    add_layer(shapes, "decoder.norm_out", width)
    add_layer(shapes, "decoder.conv_out", 3, width, 3, 3)
    return shapes


def open_clip_tower(tower: TowerShape) -> Shapes:
    width = tower.width
    shapes: Shapes = {
        "positional_embedding": (77, width),
        "text_projection": (width, tower.projection),
        "logit_scale": (),
        "token_embedding.weight": (tower.vocabulary, width),
    }
    for i in range(tower.layers):
        block = f"transformer.resblocks.{i}"
        add_layer(shapes, f"{block}.ln_1", width)
        add_layer(shapes, f"{block}.ln_2", width)
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        add_layer(shapes, f"{block}.attn.out_proj", width, width)
        add_layer(shapes, f"{block}.mlp.c_fc", 4 * width, width)
        add_layer(shapes, f"{block}.mlp.c_proj", width, 4 * width)
    add_layer(shapes, "ln_final", width)
    return shapes


def clip_tower(width: int, layers: int, vocabulary: int = 49408) -> Shapes:
    """OpenAI's tower as LDM wraps it: the transformers model of its time."""
    shapes: Shapes = {
        "text_model.embeddings.position_ids": (1, 77),
        "text_model.embeddings.token_embedding.weight": (vocabulary, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
    }
    for i in range(layers):
        layer = f"text_model.encoder.layers.{i}"
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            add_layer(shapes, f"{layer}.self_attn.{projection}", width, width)
        add_layer(shapes, f"{layer}.layer_norm1", width)
        add_layer(shapes, f"{layer}.mlp.fc1", 4 * width, width)
        add_layer(shapes, f"{layer}.mlp.fc2", width, 4 * width)
        add_layer(shapes, f"{layer}.layer_norm2", width)
    add_layer(shapes, "text_model.final_layer_norm", width)
    return shapes


def single_file(family: str) -> Shapes:
    """All tensors of a full-size file, the inert ones included."""
    parts = {"model.diffusion_model.": ldm_unet(UNETS[family]), "first_stage_model.": ldm_vae()}
    if family == "sd1":
        parts["cond_stage_model.transformer."] = clip_tower(768, 12)
    elif family == "sd2":
        parts["cond_stage_model.model."] = open_clip_tower(TowerShape(1024, 24, 1024))
    elif family == "sdxl-refiner":
        parts["conditioner.embedders.0.model."] = open_clip_tower(TowerShape(1280, 32, 1280))
    else:
        parts["conditioner.embedders.0.transformer."] = clip_tower(768, 12)
        parts["conditioner.embedders.1.model."] = open_clip_tower(TowerShape(1280, 32, 1280))
    inert = {"denoiser.sigmas": (1000,)} if "sdxl" in family else {"betas": (1000,)}
    inert |= {"alphas_cumprod": (1000,), "model_ema.decay": (), "model_ema.num_updates": ()}
    return inert | {
        prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()
    }
