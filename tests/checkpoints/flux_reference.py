"""Names and shapes of Flux's original files, from how black-forest-labs/flux builds its networks.

Written from the structure of `flux.model.Flux` and `flux.modules.layers`, apart from the key tables
under test.
"""

from dataclasses import dataclass

from ldm_reference import Shapes, add_layer, clip_tower, ldm_vae


@dataclass(frozen=True)
class FluxShape:
    width: int = 3072
    head: int = 128
    double: int = 19
    single: int = 38
    text: int = 4096
    pooled: int = 768
    channels: int = 64
    guidance: bool = True


@dataclass(frozen=True)
class T5Shape:
    width: int = 4096
    hidden: int = 10240
    inner: int = 4096
    heads: int = 64
    layers: int = 24
    vocabulary: int = 32128


def flux_transformer(flux: FluxShape) -> Shapes:
    shapes: Shapes = {}
    width = flux.width
    add_layer(shapes, "img_in", width, flux.channels)
    add_layer(shapes, "txt_in", width, flux.text)
    embedders = {"time_in": 256, "vector_in": flux.pooled}
    if flux.guidance:
        embedders["guidance_in"] = 256
    for name, inputs in embedders.items():
        add_layer(shapes, f"{name}.in_layer", width, inputs)
        add_layer(shapes, f"{name}.out_layer", width, width)
    for i in range(flux.double):
        for stream in ("img", "txt"):
            block = f"double_blocks.{i}.{stream}"
            add_layer(shapes, f"{block}_mod.lin", 6 * width, width)
            add_layer(shapes, f"{block}_attn.qkv", 3 * width, width)
            add_layer(shapes, f"{block}_attn.proj", width, width)
            for norm in ("query_norm", "key_norm"):
                shapes[f"{block}_attn.norm.{norm}.scale"] = (flux.head,)
            add_layer(shapes, f"{block}_mlp.0", 4 * width, width)
            add_layer(shapes, f"{block}_mlp.2", width, 4 * width)
    for i in range(flux.single):
        block = f"single_blocks.{i}"
        add_layer(shapes, f"{block}.linear1", 3 * width + 4 * width, width)
        add_layer(shapes, f"{block}.linear2", width, width + 4 * width)
        for norm in ("query_norm", "key_norm"):
            shapes[f"{block}.norm.{norm}.scale"] = (flux.head,)
        add_layer(shapes, f"{block}.modulation.lin", 3 * width, width)
    add_layer(shapes, "final_layer.linear", flux.channels, width)
    add_layer(shapes, "final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes


def t5_encoder(t5: T5Shape) -> Shapes:
    shapes: Shapes = {
        "shared.weight": (t5.vocabulary, t5.width),
        "encoder.embed_tokens.weight": (t5.vocabulary, t5.width),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, t5.heads),
        "encoder.final_layer_norm.weight": (t5.width,),
    }
    for i in range(t5.layers):
        attention, feed_forward = (f"encoder.block.{i}.layer.{index}" for index in (0, 1))
        for letter in "qkv":
            shapes[f"{attention}.SelfAttention.{letter}.weight"] = (t5.inner, t5.width)
        shapes[f"{attention}.SelfAttention.o.weight"] = (t5.width, t5.inner)
        for name in ("wi_0", "wi_1"):
            shapes[f"{feed_forward}.DenseReluDense.{name}.weight"] = (t5.hidden, t5.width)
        shapes[f"{feed_forward}.DenseReluDense.wo.weight"] = (t5.width, t5.hidden)
        for layer in (attention, feed_forward):
            shapes[f"{layer}.layer_norm.weight"] = (t5.width,)
    return shapes


def flux_vae() -> Shapes:
    bare = ldm_vae(latents=16)
    return {name: shape for name, shape in bare.items() if "quant_conv" not in name}


def flux_single_file(flux: FluxShape) -> Shapes:
    """All tensors of a full-size file with all components, the inert ones included."""
    clip = clip_tower(768, 12) | {"text_projection.weight": (768, 768)}
    parts = {
        "model.diffusion_model.": flux_transformer(flux),
        "text_encoders.clip_l.transformer.": clip,
        "text_encoders.t5xxl.transformer.": t5_encoder(T5Shape()),
        "vae.": flux_vae(),
    }
    inert = {f"text_encoders.{name}.logit_scale": () for name in ("clip_l", "t5xxl")}
    return inert | {
        prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()
    }
