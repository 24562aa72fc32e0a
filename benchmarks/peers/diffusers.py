"""Diffusers' own pipeline on the same folder: eager, on the CPU or a GPU.

``pip install diffusers torch transformers``. In bf16 the networks run in bf16 in channels-last
memory, which is the quickest that diffusers is on a CPU without compiling.
"""

import time
from importlib.metadata import version
from pathlib import Path

try:
    import diffusers
    import torch
except ModuleNotFoundError as error:
    MISSING = f"{error}: pip install diffusers torch transformers"
else:
    MISSING = ""

TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# What draws with a family, and what of it would do more than draw.
PIPELINES = {
    "sd1": ("StableDiffusionPipeline", {"safety_checker": None}),
    "sd2": ("StableDiffusionPipeline", {"safety_checker": None}),
    "sdxl": ("StableDiffusionXLPipeline", {"add_watermarker": False}),
    "flux": ("FluxPipeline", {}),
}


class Painter:
    """Draws with the checkpoint's own pipeline; a task: `fastdeploy_diffusion.benchmark`."""

    keeps_builds = False

    def __init__(self, task):
        if task["precision"] not in TYPES:
            raise ValueError(f"diffusers: {task['precision']}, not {', '.join(TYPES)}")
        if not Path(task["model_path"]).is_dir():
            raise ValueError(f"diffusers: a diffusers folder, not {Path(task['model_path']).name}")
        if MISSING:
            raise ModuleNotFoundError(MISSING)
        precision = getattr(torch, TYPES[task["precision"]])
        torch.set_num_threads(task["threads"])
        self._task = task
        name, options = PIPELINES[task["family"]]
        pipeline = getattr(diffusers, name).from_pretrained(
            task["model_path"], dtype=precision, **options
        )
        if pipeline.dtype != precision:
            # Older versions pass over the name that newer ones want.
            raise ValueError(f"diffusers loaded {pipeline.dtype}: a newer version is needed")
        if task["scheduler"]:
            scheduler = getattr(diffusers, task["scheduler"])
            pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        self._device = task["device"].replace("gpu", "cuda")
        self._pipeline = pipeline.to(self._device)
        if task["precision"] != "fp32":
            for part in sorted(set(pipeline.components) & {"unet", "vae"}):
                getattr(pipeline, part).to(memory_format=torch.channels_last)
        self._clock = Clock(self._device)
        for part in sorted(set(pipeline.components) & {"text_encoder", "text_encoder_2"}):
            self._clock.watch(getattr(pipeline, part), "text_encoder", "forward")
        self._clock.watch(pipeline.vae, "vae_decoder", "decode")

    def describe(self):
        """Say which versions and settings draw."""
        packages = {name: version(name) for name in ("diffusers", "torch", "transformers")}
        return {
            **packages,
            "threads": torch.get_num_threads(),
            "scheduler": type(self._pipeline.scheduler).__name__,
            "attention": "scaled_dot_product_attention",
            "channels_last": self._task["precision"] != "fp32",
            "compiled": False,
        }

    def draw(self, prompts, seeds, steps):
        """Draw a picture of each prompt; give the seconds of each stage, too."""
        ends = []

        def note(pipeline, step, timestep, tensors):
            ends.append(self._clock.read())
            return tensors

        self._clock.seconds.clear()
        # Noise is drawn on the CPU, as ours is, so that the same seed is the same picture.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pictures = self._pipeline(
            list(prompts),
            num_inference_steps=steps,
            height=self._task["height"],
            width=self._task["width"],
            generator=generators,
            callback_on_step_end=note,
            **self._list_settings(),
        ).images
        stages = {name: sum(seconds) for name, seconds in self._clock.seconds.items()}
        return pictures, {**stages, "step": self._clock.split_steps(ends)}

    def _list_settings(self):
        """What not every pipeline takes."""
        settings = {}
        if self._task["guidance_scale"] is not None:
            settings["guidance_scale"] = self._task["guidance_scale"]
        if self._task["family"] == "flux":
            # Left out, diffusers takes 512 for the models without guidance, too.
            published = 512 if self._pipeline.transformer.config.guidance_embeds else 256
            settings["max_sequence_length"] = self._task["max_sequence_length"] or published
        return settings


class Clock:
    """Times parts of a pipeline from outside."""

    def __init__(self, device):
        self._device = device
        self.seconds = {}
        self._conditioned = 0.0

    def read(self):
        """Now, when the device has done all that it was given."""
        if self._device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, network, stage, method):
        """Time a method of a network as a stage."""
        plain = getattr(network, method)

        def timed(*arguments, **keywords):
            started = self.read()
            result = plain(*arguments, **keywords)
            self._conditioned = self.read() if stage == "text_encoder" else self._conditioned
            self.seconds.setdefault(stage, []).append(self.read() - started)
            return result

        setattr(network, method, timed)

    def split_steps(self, ends):
        """Seconds of each step; the first begins when the texts are encoded."""
        begins = [self._conditioned, *ends[:-1]]
        return [end - begin for begin, end in zip(begins, ends, strict=True)]
