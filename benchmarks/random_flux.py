"""A Flux transformer with random weights, and inputs for it: what the scripts beside this share."""

import json
from pathlib import Path

import numpy as np

from fastdeploy_diffusion.checkpoints import Checkpoint, TensorSource, build_skeleton, list_shapes
from fastdeploy_diffusion.checkpoints.safetensors_file import SafetensorsFile
from fastdeploy_diffusion.checkpoints.tensor_source import TensorView
from fastdeploy_diffusion.families.flux import FLUX
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.families.published.flux import FLUX_DEV
from fastdeploy_diffusion.models.flux import FluxTransformer2DModel
from fastdeploy_diffusion.predictors.packing import list_positions


class RandomInputs:
    """(1, N, C) tokens, (1, T, D) texts, (1, P) pooled texts, (N, 3) positions."""

    def __init__(
        self, config: FluxTransformer2DConfig, pixels: int, text_tokens: int, seed: int
    ) -> None:
        random, side = np.random.default_rng(seed), pixels // 16
        shapes = (
            (1, side**2, config.in_channels),
            (1, text_tokens, config.joint_attention_dim),
            (1, config.pooled_projection_dim),
        )
        self.tokens, self.texts, self.pooled = (
            random.standard_normal(each, np.float32) for each in shapes
        )
        self.positions = list_positions(side, side)

    def condition(self, guidance: float) -> dict[str, np.ndarray]:
        """What a distilled transformer gets besides tokens and timestep."""
        return {
            "encoder_hidden_states": self.texts,
            "pooled_projections": self.pooled,
            "img_ids": self.positions,
            "txt_ids": np.zeros((self.texts.shape[1], 3), np.float32),
            "guidance": np.array([guidance], np.float32),
        }


class RandomTransformer(Checkpoint):
    """As much of a checkpoint as a denoiser reads."""

    def __init__(self, folder: Path, depth: tuple[int, int]) -> None:
        self.path, self.family, self.components = folder, FLUX, ("transformer",)
        self.pipeline_options = {}
        double, single = depth
        options = {**FLUX_DEV["transformer"], "num_layers": double, "num_single_layers": single}
        config = FluxTransformer2DConfig.from_dict(options)
        shapes = list_shapes(build_skeleton(lambda: FluxTransformer2DModel(config)))
        self.file = folder / f"random-flux-{double}-{single}.safetensors"
        if not self.file.exists():
            write_random(self.file, shapes)
        opened = SafetensorsFile(self.file)
        views = {name: TensorView(opened, name) for name in shapes}
        self._sources = {"transformer": TensorSource(str(self.file), views)}
        self._configs = {"transformer": options}

    def folder(self, component: str) -> Path | None:
        """There is none."""
        return None


def write_random(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write bf16 weights, matrices with 1 / sqrt(inputs), one tensor in memory at a time."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    # Drawing every value would take minutes: each tensor has stretches of these of its own.
    pool = random.standard_normal(2**25, np.float32)
    scaled: dict[tuple[float, float], np.ndarray] = {}
    unfinished = file.with_suffix(".part")
    with unfinished.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.02
            kind = scale, 1.0 if ".norm_" in name else 0.0
            if kind not in scaled:
                values = pool * np.float32(kind[0]) + np.float32(kind[1])
                scaled[kind] = (values.view(np.uint32) >> 16).astype(np.uint16)
            rest = int(np.prod(shape))
            while rest:
                count = min(2**24, rest)
                begin = int(random.integers(0, len(pool) - count + 1))
                out.write(scaled[kind][begin : begin + count].data)
                rest -= count
    unfinished.rename(file)
