"""Flux's two text encoders, which learn what captions say before the transformer sees them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from fastdeploy_diffusion.families.networks.t5 import T5Config
from fastdeploy_diffusion.models.clip import CLIPTextModel
from fastdeploy_diffusion.models.t5 import T5EncoderModel
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, T5Tokenizer
from shapes.captions import CaptionReader, train_reader

MAX_TOKENS = 12


@dataclass(frozen=True)
class Texts:
    """Encoded captions: T5's features (N, T, D) and CLIP's pooled output (N, P), float32."""

    features: np.ndarray
    pooled: np.ndarray

    def take(self, rows: np.ndarray | list[int]) -> "Texts":
        """Those at ``rows``, which may repeat."""
        return Texts(self.features[rows], self.pooled[rows])


@dataclass(frozen=True)
class TextEncoders:
    """Both encoders and their tokenizers."""

    clip: CLIPTextModel
    clip_tokenizer: CLIPTokenizer
    t5: T5EncoderModel
    t5_tokenizer: T5Tokenizer

    def encode(self, captions: list[str]) -> Texts:
        """Encode N captions."""
        self.clip.eval()
        self.t5.eval()
        features, pooled = [], []
        for start in range(0, len(captions), 256):
            texts = captions[start : start + 256]
            clip_ids = self.clip_tokenizer.encode(texts).input_ids
            t5_ids = self.t5_tokenizer.encode(texts, MAX_TOKENS).input_ids
            with paddle.no_grad():
                pooled.append(self.clip(paddle.to_tensor(clip_ids)).pooled.numpy())
                features.append(self.t5(paddle.to_tensor(t5_ids)).numpy())
        return Texts(np.concatenate(features), np.concatenate(pooled))


def t5_config(tokenizer: T5Tokenizer) -> dict[str, object]:
    """``config.json`` of the T5 encoder for a vocabulary."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "dtype": "float32",
        "torch_dtype": "float32",
        "d_ff": 256,
        "d_kv": 32,
        "d_model": 128,
        "decoder_start_token_id": tokenizer.pad_id,
        "dense_act_fn": "gelu_new",
        "eos_token_id": tokenizer.eos_id,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-6,
        "num_heads": 4,
        "num_layers": 2,
        "pad_token_id": tokenizer.pad_id,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "use_cache": False,
        "vocab_size": tokenizer.vocab_size,
    }


def create_t5(config: dict[str, object]) -> T5EncoderModel:
    """An untrained encoder, whose queries are small because T5 does not scale attention."""
    encoder = T5EncoderModel(T5Config.from_dict(config))
    for block in encoder.encoder.block:
        query = block.layer[0].SelfAttention.q.weight
        query.set_value(query / math.sqrt(encoder.config.d_kv))
    return encoder


def train_t5(
    encoder: T5EncoderModel, tokenizer: T5Tokenizer, path: Path, *, steps: int, batch: int
) -> None:
    """Train the mean of T5's features to tell the scene, ``batch`` captions on every worker."""
    reader = CaptionReader(encoder, encoder.config.d_model, _look_at_the_mean)
    train_reader(
        reader,
        lambda texts: tokenizer.encode(texts, MAX_TOKENS).input_ids,
        path,
        steps=steps,
        batch=batch,
    )


def _look_at_the_mean(features: Tensor) -> Tensor:
    return features.mean(axis=1).unsqueeze(0)
