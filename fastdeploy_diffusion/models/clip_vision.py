"""CLIP's vision tower (Radford et al., 2021), which is a ViT (Dosovitskiy et al., 2020)."""

from typing import NamedTuple

import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.families.networks.clip import CLIPVisionConfig
from fastdeploy_diffusion.models.clip import CLIPEncoder
from fastdeploy_diffusion.models.sizes import read_sizes


class CLIPVisionOutput(NamedTuple):
    """The outputs of the vision tower; every tensor is float32."""

    image_embeds: Tensor  # (B, projection_dim) of the class token, normalised and projected
    hidden_states: tuple[Tensor, ...]  # the embeddings and each layer's output, (B, T, D)


class CLIPVisionModelWithProjection(nn.Layer):
    """The vision tower, whose pooled output is projected to CLIP's joint space."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        self.config = config
        dim, epsilon = config.hidden_size, config.layer_norm_eps
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(dim, epsilon=epsilon)  # the name that checkpoints have
        self.encoder = CLIPEncoder(config, is_causal=False)
        self.post_layernorm = nn.LayerNorm(dim, epsilon=epsilon)
        self.visual_projection = nn.Linear(dim, config.projection_dim, bias_attr=False)

    def forward(self, pixel_values: Tensor) -> CLIPVisionOutput:
        """Encode pictures (B, 3, image_size, image_size) float32, as `clip_pictures` makes them."""
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
        hidden_states = [hidden]
        for layer in self.encoder.layers:
            hidden = layer(hidden)
            hidden_states.append(hidden)
        pooled = self.post_layernorm(hidden[:, 0])
        return CLIPVisionOutput(self.visual_projection(pooled), tuple(hidden_states))


class CLIPVisionEmbeddings(nn.Layer):
    """A token for the whole picture and one for each patch, with learned positions."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        super().__init__()
        dim, patch = config.hidden_size, config.patch_size
        self.class_embedding = self.create_parameter([dim])
        self.patch_embedding = nn.Conv2D(3, dim, patch, stride=patch, bias_attr=False)
        self.position_embedding = nn.Embedding(config.tokens, dim)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, T, D)."""
        patches = self.patch_embedding(pixel_values).flatten(2).transpose([0, 2, 1])
        batch, _, dim = read_sizes(patches)
        whole = self.class_embedding.expand([batch, 1, dim])
        return paddle.concat([whole, patches], axis=1) + self.position_embedding.weight
