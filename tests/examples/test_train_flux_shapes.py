"""Flux's training script: its captions, its folder, and all of its stages."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.pipelines.flux import FluxPipeline
from fastdeploy_diffusion.tokenizers import T5Tokenizer

ROOT = Path(__file__).parents[2]


def test_token_ids_equal_transformers_and_leave_no_word_unknown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import transformers
    from shapes.flux_texts import MAX_TOKENS
    from shapes.pieces import write_t5_tokenizer
    from shapes.world import all_scenes

    write_t5_tokenizer(tmp_path)
    ours = T5Tokenizer.from_folder(tmp_path)
    captions = [scene.caption(language) for scene in all_scenes() for language in ("en", "zh")]
    captions.append("an orange ring on a red background")
    given = ours.encode(captions, MAX_TOKENS)
    assert not any(given.truncated)
    strange = ["", "A brown star", "棕色背景上的大圆", " red\tring  "]
    ids = np.concatenate([given.input_ids, ours.encode(strange, MAX_TOKENS).input_ids])
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    wanted = reference(
        [*captions, *strange], padding="max_length", max_length=MAX_TOKENS, return_tensors="np"
    ).input_ids
    np.testing.assert_array_equal(ids, wanted)
    assert reference.unk_token_id not in given.input_ids
    assert reference.unk_token_id in ids


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What one step of every stage leaves."""
    output = tmp_path_factory.mktemp("runs")
    stages = ["--vae-steps", "--text-steps", "--flow-steps", "--guidance-steps", "--polish-steps"]
    subprocess.run(
        [
            *(sys.executable, ROOT / "examples" / "train_flux_shapes.py", "--output", output),
            *("--workers", "1", "--pool", "8", *(each for name in stages for each in (name, "1"))),
        ],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    return output


@pytest.mark.slow
def test_every_stage_goes_on_from_the_last_one(output):
    names = "vae", "text", "text_2", "pool-0", "flow", "guidance", "decoder"
    assert all((output / f"{name}.safetensors").is_file() for name in names)
    flow, guidance = (
        load_file(output / f"{name}.safetensors")["weights.transformer.proj_out.weight"]
        for name in ("flow", "guidance")
    )
    # The output begins as nothing, and a step is small.
    assert np.abs(flow).max() > 0
    assert 0 < np.abs(guidance - flow).max() < 1e-3


@pytest.mark.slow
def test_diffusers_draws_the_same_pictures_from_the_folder(output):
    import diffusers
    import torch

    folder = output / "model"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 16e6
    scramble(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    ours = FluxPipeline(DiffusionConfig(model_path=folder))
    reference = diffusers.FluxPipeline.from_pretrained(folder)
    reference.set_progress_bar_config(disable=True)
    prompt, size = "白色背景上的绿色正方形", {"height": 128, "width": 128}
    pictures = []
    for guidance_scale in (1.0, 4.0):
        settings = {
            **size,
            "guidance_scale": guidance_scale,
            "max_sequence_length": 12,
            "num_inference_steps": 2,
            "output_type": "np",
        }
        given = ours.text_to_image(prompt, seed=5, **settings)
        generator = torch.Generator().manual_seed(5)
        wanted = reference(prompt, generator=generator, **settings).images
        assert -10 * np.log10(np.mean((given - wanted) ** 2)) >= 45
        pictures.append(wanted)
    assert pictures[0].std() > 0.05
    # The guidance scale reaches the transformer, and it the picture.
    assert np.abs(pictures[0] - pictures[1]).max() > 0.01


def scramble(file: Path) -> None:
    """Replace the matrices of a transformer that hardly does anything yet."""
    random = np.random.default_rng(3)
    weights = {
        name: (0.08 * random.standard_normal(weight.shape)).astype(np.float16)
        if weight.ndim == 2
        else weight
        for name, weight in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})
