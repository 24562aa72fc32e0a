"""The networks as engines run them: tensors in, tensors out, without options per request."""

import paddle
from paddle import Tensor, nn

from fastdeploy_diffusion.models.autoencoder import AutoencoderKL
from fastdeploy_diffusion.models.autoencoder_tiny import AutoencoderTiny
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.clip_vision import CLIPVisionModelWithProjection


class TextConditioner(nn.Layer):
    """A text encoder that returns every layer's hidden states, so that clip skip needs no rebuild.

    Args:
        normalize: Apply the final LayerNorm to each of them, as Stable Diffusion 1.x and 2.x do.
    """

    def __init__(self, encoder: CLIPTextModel, normalize: bool) -> None:
        super().__init__()
        self.encoder, self.census = encoder, encoder.config.census()
        self.normalize = normalize

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, T) int64 to hidden states (layers + 1, B, T, D) and pooled output (B, P)."""
        output = self.encoder(input_ids)
        hidden_states = paddle.stack(output.hidden_states)
        if self.normalize:
            hidden_states = self.encoder.final_layer_norm(hidden_states)
        return hidden_states, output.pooled


class PooledTextConditioner(nn.Layer):
    """A text encoder that returns its pooled output alone, which is all that Flux takes of CLIP."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder, self.census = encoder, encoder.config.census()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map (B, T) int64 to (B, P)."""
        return self.encoder(input_ids).pooled


class ImageConditioner(nn.Layer):
    """A vision tower that returns what the kinds of IP-Adapters take."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder, self.census = encoder, encoder.config.census()

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, S, S) to the projected output (B, P), and the last hidden states but one.

        Those are (B, T, D): what the last layer takes.
        """
        output = self.encoder(pixel_values)
        return output.image_embeds, output.hidden_states[-2]


class LatentEncoder(nn.Layer):
    """The autoencoder's encoder, which gives the moments that latents are drawn from."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.config, self.census = vae.config, vae.config.encoder_census()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to means and log variances (B, 2 C, H/8, W/8)."""
        moments = self.encoder(images)
        return moments if self.quant_conv is None else self.quant_conv(moments)


class LatentDecoder(nn.Layer):
    """The autoencoder's decoder, for the denoiser's scaled latents; without the encoder."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.config, self.census = vae.config, vae.config.census()
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents (B, 4, H/8, W/8) to images (B, 3, H, W), about in [-1, 1]."""
        latents = latents / self.config.scaling_factor
        if self.config.shift_factor is not None:
            latents = latents + self.config.shift_factor
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)


class TinyLatentDecoder(nn.Layer):
    """The tiny autoencoder's decoder, for the denoiser's scaled latents; without the encoder."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.config, self.census = vae.config, vae.config.census()
        self.decoder = vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents (B, 4, H/8, W/8) to images (B, 3, H, W), about in [-1, 1]."""
        latents = latents / self.config.scaling_factor
        if self.config.shift_factor is not None:
            latents = latents + self.config.shift_factor
        return self.decoder(latents)
