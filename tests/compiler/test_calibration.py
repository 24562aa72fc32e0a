"""A calibration holds what the networks were really given, and goes on after an interruption."""

import errno
import shutil
import weakref

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.compiler import calibration
from fastdeploy_diffusion.compiler.calibration import (
    CALLS,
    SEED,
    choose_calls,
    intercept_runs,
    record_calibration,
)
from fastdeploy_diffusion.errors import CacheError, ConfigError

SIZE = 32, 32
PROMPTS = ("a red circle", "a dog", "猫")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("tiny") / "sd")


def open_pipeline(folder, tokenizer_path=None, **defaults):
    return SDPipeline(
        DiffusionConfig(
            model_path=folder,
            tokenizer_path=tokenizer_path,
            engine="paddle-eager",
            scheduler="ddim",
            defaults={"num_inference_steps": 3, "guidance_scale": 4.0, **defaults},
            embedding_cache={"memory_mib": 0},
        )
    )


@pytest.fixture(scope="module")
def pipeline(folder):
    return open_pipeline(folder)


def record(pipeline, root, prompts=PROMPTS, show=lambda *_: None):
    return record_calibration(pipeline, prompts, SIZE, root, show)


def same(one, other):
    return [
        all(np.array_equal(a[name], b[name]) for name in a) and a.keys() == b.keys()
        for a, b in zip(one, other, strict=True)
    ]


def test_the_networks_are_given_again_what_they_were_given(pipeline, tmp_path):
    recorded = record(pipeline, tmp_path)
    denoiser, vae = (list(recorded.feeds(name)) for name in ("denoiser", "vae_decoder"))
    assert (len(denoiser), len(vae)) == (3 * len(PROMPTS), len(PROMPTS))
    assert denoiser[0]["sample"].shape == (2, 4, 16, 16)
    timesteps = [float(each["timestep"][0]) for each in denoiser]
    assert timesteps[:3] == sorted(timesteps[:3], reverse=True)
    assert timesteps[:3] * 3 == timesteps
    latents = pipeline.generate(
        PROMPTS[1], seed=SEED + 1, output_type="latent", height=32, width=32
    ).images
    np.testing.assert_array_equal(vae[1]["latents"], latents)
    # Both texts of a prompt, of which the empty one is read again for each.
    texts = list(recorded.feeds("text_encoder"))
    assert len(texts) == 2 * len(PROMPTS)
    assert texts[0]["input_ids"].dtype == np.int64


def test_the_same_prompts_are_recorded_once_and_the_same_everywhere(pipeline, tmp_path):
    one, other = (record(pipeline, tmp_path / name) for name in "ab")
    assert one.digest == other.digest
    assert all(same(one.feeds("denoiser"), other.feeds("denoiser")))
    before = {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    assert record(pipeline, tmp_path / "a") == one
    assert {path: path.stat().st_mtime_ns for path in one.folder.iterdir()} == before


@pytest.mark.parametrize("change", ["prompts", "steps", "weights", "size"])
def test_what_it_depends_on_is_in_its_digest(pipeline, folder, tmp_path, change):
    changed, prompts, size = pipeline, PROMPTS[:1], SIZE
    if change == "steps":
        changed = open_pipeline(folder, num_inference_steps=4)
    elif change == "weights":
        changed = open_pipeline(write_tiny_sd(tmp_path / "sd", seed=1))
    one = record_calibration(pipeline, prompts, size, tmp_path, lambda *_: None)
    prompts = PROMPTS[1:2] if change == "prompts" else prompts
    size = (40, 32) if change == "size" else size
    other = record_calibration(changed, prompts, size, tmp_path, lambda *_: None)
    assert one.digest != other.digest


def test_the_same_tokenizer_elsewhere_is_the_same_and_another_is_not(pipeline, folder, tmp_path):
    digests = []
    for name in ("copy", "another"):
        tokenizer = shutil.copytree(folder / "tokenizer", tmp_path / name)
        if name == "another":
            merges = (tokenizer / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges[1:3] = merges[2:0:-1]
            (tokenizer / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
        (tokenizer / "README.md").write_text(name)  # no part of a vocabulary
        changed = open_pipeline(folder, tokenizer)
        digests.append(record(changed, tmp_path, PROMPTS[:1]).digest)
    assert digests[0] == record(pipeline, tmp_path, PROMPTS[:1]).digest != digests[1]


def test_calls_are_counted_without_reading_their_numbers(pipeline, tmp_path):
    recorded = record(pipeline, tmp_path)
    for name in ("text_encoder", "denoiser", "vae_decoder", "safety_checker"):
        assert recorded.count(name) == len(list(recorded.feeds(name)))


def test_calls_that_are_not_chosen_are_not_held(folder, tmp_path, monkeypatch):
    alive, most = [], 0

    def watch(pipeline, interceptors):
        record = interceptors["denoiser"]

        def intercept(arrays, run):
            nonlocal most
            alive.append(weakref.ref(arrays["sample"]))
            outputs = record(arrays, run)
            most = max(most, sum(each() is not None for each in alive))
            return outputs

        return intercept_runs(pipeline, {**interceptors, "denoiser": intercept})

    monkeypatch.setattr(calibration, "intercept_runs", watch)
    monkeypatch.setattr(calibration, "CALLS", 2)
    recorded = record(open_pipeline(folder, num_inference_steps=9), tmp_path, PROMPTS[:1])
    assert recorded.count("denoiser") == 2
    assert len(alive) == 9
    assert most <= 3  # those that are kept, and the one that runs


def test_a_run_can_be_replaced(pipeline):
    settings = {"seed": 3, "output_type": "latent", "height": 32, "width": 32}

    def halve(arrays, run):
        return {name: array / 2 for name, array in run().items()}

    def repeat(arrays, run):
        return run()

    wanted = pipeline.generate("a dog", **settings).images
    with intercept_runs(pipeline, {"denoiser": repeat}):
        np.testing.assert_array_equal(pipeline.generate("a dog", **settings).images, wanted)
    with intercept_runs(pipeline, {"denoiser": halve}):
        assert abs(pipeline.generate("a dog", **settings).images - wanted).max() > 0.1
    np.testing.assert_array_equal(pipeline.generate("a dog", **settings).images, wanted)


def test_an_interrupted_recording_goes_on_where_it_stopped(pipeline, tmp_path):
    whole, shown = record(pipeline, tmp_path / "whole"), []

    def interrupt(task, done, total):
        shown.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(pipeline, tmp_path / "cut", show=interrupt)
    assert shown == [0, 1, 2]
    folder = tmp_path / "cut" / "calibrations" / whole.digest
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(kept) == 2
    resumed = record(pipeline, tmp_path / "cut")
    assert (
        kept.items()
        <= {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}.items()
    )
    assert all(same(resumed.feeds("denoiser"), whole.feeds("denoiser")))
    assert pipeline.component("denoiser").intercept is None


def test_a_damaged_file_is_recorded_anew(pipeline, tmp_path):
    whole = record(pipeline, tmp_path)
    expected = list(whole.feeds("denoiser"))
    path = whole.folder / "0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CacheError, match=r"damaged: 0001\.safetensors"):
        list(whole.feeds("denoiser"))
    with pytest.raises(CacheError, match=r"damaged: 0001\.safetensors"):
        whole.count("denoiser")
    assert all(same(record(pipeline, tmp_path).feeds("denoiser"), expected))


def test_a_full_disk_is_an_error_that_says_so(pipeline, tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(calibration, "write_whole", fail)
    with pytest.raises(CacheError, match="no space left; what is recorded stays"):
        record(pipeline, tmp_path)


def test_one_step_cannot_be_calibrated_with(folder, tmp_path):
    with pytest.raises(ConfigError, match="cannot be calibrated with 1 step"):
        record(open_pipeline(folder, num_inference_steps=1), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("total", [2, CALLS, 9, 20, 50, 1000])
def test_calls_are_spread_over_all_timesteps(total):
    chosen = [choose_calls(total, prompt) for prompt in range(32)]
    for calls in chosen:
        assert len(set(calls)) == len(calls) == min(CALLS, total)
        assert calls == sorted(calls)
        assert all(0 <= call < total for call in calls)
    seen = {call for calls in chosen for call in calls}
    if total <= 100:
        assert seen == set(range(total))
    assert np.diff(sorted(seen)).max() <= max(total / CALLS, 1)
