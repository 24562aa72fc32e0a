"""Stage 2: the text encoder learns what captions say, in both languages.

CLIP's encoder is trained on captions and pictures before the UNet ever sees it. Here the pictures
are known exactly, so the encoder learns to predict the scene (size, colour, shape, background) from
its own output; English and Chinese captions of one scene come to mean the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from fastdeploy_diffusion.families.networks.clip import CLIPTextConfig
from fastdeploy_diffusion.models.clip import CLIPTextModel, CLIPTextOutput
from fastdeploy_diffusion.tokenizers import CLIPTokenizer
from shapes.pictures import training_scenes
from shapes.training_run import TrainingRun
from shapes.vocabulary import MAX_TOKENS
from shapes.world import COLOURS, SHAPES, SIZES, Scene

_ATTRIBUTES = {
    "size": ("", *SIZES),
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "background": tuple(COLOURS),
}


def text_encoder_config(tokenizer_folder: Path) -> dict[str, object]:
    """The text encoder's ``config.json`` for the vocabulary in ``tokenizer_folder``."""
    tokenizer = CLIPTokenizer.from_folder(tokenizer_folder)
    empty = tokenizer.encode([""]).input_ids[0]
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        # The weights are stored in half precision to be small, and meant to run in single.
        "dtype": "float32",
        "torch_dtype": "float32",
        "bos_token_id": int(empty[0]),
        "eos_token_id": int(empty[1]),
        "pad_token_id": int(empty[1]),
        "vocab_size": int(empty[1]) + 1,
        "hidden_act": "quick_gelu",
        "hidden_size": 128,
        "intermediate_size": 512,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": MAX_TOKENS,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "projection_dim": 128,
    }


class CaptionReader(nn.Layer):
    """A text encoder with one linear classifier per attribute of the scene, for training.

    Args:
        encoder: Maps token ids (N, T) to anything.
        width: Of its features.
        summarize: Picks K vectors a caption, (K, N, width), from what it gives.
    """

    def __init__(self, encoder: nn.Layer, width: int, summarize: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self._summarize = summarize
        self.heads = nn.LayerDict(
            {name: nn.Linear(width, len(values)) for name, values in _ATTRIBUTES.items()}
        )

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute, (K, N, values)."""
        summaries = self._summarize(self.encoder(input_ids))
        return {name: head(summaries) for name, head in self.heads.items()}


def create_text_encoder(config: dict[str, object]) -> CLIPTextModel:
    """An untrained text encoder."""
    return CLIPTextModel(CLIPTextConfig.from_dict(config))


def write_caption(scene: Scene, random: np.random.Generator) -> str:
    """A caption in either language; "an orange" half of the time, as people write it."""
    caption = scene.caption("en" if random.random() < 0.5 else "zh")
    return caption.replace("a orange", "an orange") if random.random() < 0.5 else caption


def train_text_encoder(
    encoder: CLIPTextModel, tokenizer: CLIPTokenizer, path: Path, *, steps: int, batch: int
) -> None:
    """Train the end token and the last padding token of CLIP's encoder to tell the scene."""
    reader = CaptionReader(encoder, encoder.config.hidden_size, _look_at_the_end)
    train_reader(
        reader, lambda texts: tokenizer.encode(texts).input_ids, path, steps=steps, batch=batch
    )


def _look_at_the_end(output: CLIPTextOutput) -> Tensor:
    return paddle.stack([output.pooled, output.last_hidden_state[:, -1]])


def train_reader(
    reader: CaptionReader,
    tokenize: Callable[[list[str]], np.ndarray],
    path: Path,
    *,
    steps: int,
    batch: int,
) -> None:
    """Train an encoder to tell the scene from the caption, ``batch`` captions on every worker."""
    scenes = training_scenes()
    run = TrainingRun(path, {"reader": reader}, steps=steps, learning_rate=1e-3)
    for random in run.run(save_every=200):
        chosen = [scenes[index] for index in random.integers(len(scenes), size=batch)]
        input_ids = tokenize([write_caption(scene, random) for scene in chosen])
        logits = reader(paddle.to_tensor(input_ids))
        losses = []
        for name, values in _ATTRIBUTES.items():
            labels = np.array([values.index(getattr(scene, name)) for scene in chosen])
            target = paddle.to_tensor(np.tile(labels, len(logits[name])))
            losses.append(F.cross_entropy(logits[name].flatten(0, 1), target))
        run.learn(paddle.add_n(losses))
    run.use_average()
