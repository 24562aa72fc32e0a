"""OpenVINO GenAI's own pipeline, on what optimum-intel exports from the same folder.

``pip install optimum-intel openvino-genai openvino-tokenizers diffusers torch``. Exported in
float32, and compiled for the one size and batch that is drawn, which is the quickest that it is.
"""

import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

try:
    import diffusers
    import openvino
    import openvino_genai
    import torch
    from optimum.exporters.openvino import main_export
except ModuleNotFoundError as error:
    MISSING = (
        f"{error}: pip install optimum-intel openvino-genai openvino-tokenizers diffusers torch"
    )
else:
    MISSING = ""

FAMILIES = ("sd1", "sd2")
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
SCHEDULERS = {
    "DDIMScheduler": "DDIM",
    "EulerDiscreteScheduler": "EULER_DISCRETE",
    "EulerAncestralDiscreteScheduler": "EULER_ANCESTRAL_DISCRETE",
    "LCMScheduler": "LCM",
    "PNDMScheduler": "PNDM",
}


class Painter:
    """Draws with `Text2ImagePipeline`; a task says what (`fastdeploy_diffusion.benchmark`)."""

    keeps_builds = True

    def __init__(self, task):
        if task["precision"] not in HINTS:
            raise ValueError(f"openvino-genai: {task['precision']}, not {', '.join(HINTS)}")
        if task["device"] != "cpu":
            raise ValueError(f"openvino-genai: on the cpu, not on {task['device']}")
        if task["family"] not in FAMILIES:
            raise ValueError(f"openvino-genai: {task['family']}, only tried with {FAMILIES}")
        if task["scheduler"] and task["scheduler"] not in SCHEDULERS:
            raise ValueError(f"openvino-genai: {task['scheduler']}, not {', '.join(SCHEDULERS)}")
        if MISSING:
            raise ModuleNotFoundError(MISSING)
        instructions = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if task["precision"].upper() not in instructions:
            # Asked for it all the same, OpenVINO would quietly compute in another.
            raise ValueError(f"openvino-genai: this CPU has no {task['precision']}")
        self._task, self._batch, self._pipeline = task, None, None
        self._folder = Path(task["cache_dir"]) / "exported"
        if not self._folder.is_dir():
            torch.set_num_threads(task["threads"])
            partial = self._folder.with_name("unfinished")
            main_export(
                task["model_path"],
                output=partial,
                task="text-to-image",
                library_name="diffusers",
                convert_tokenizer=True,
            )
            os.rename(partial, self._folder)
        self._load()

    def _load(self):
        pipeline = openvino_genai.Text2ImagePipeline(self._folder)
        if self._task["scheduler"]:
            # With every option written down, as diffusers has them; and of the checkpoint: the
            # export has written down the defaults of its former scheduler.
            scheduler = getattr(diffusers, self._task["scheduler"])
            config = scheduler.load_config(self._task["model_path"], subfolder="scheduler")
            folder = self._folder.with_name("scheduler")
            scheduler.from_config(config).save_config(folder)
            kind = getattr(openvino_genai.Scheduler.Type, SCHEDULERS[self._task["scheduler"]])
            file = folder / "scheduler_config.json"
            pipeline.set_scheduler(openvino_genai.Scheduler.from_config(file, kind))
        self._pipeline = pipeline

    def _compile(self, batch):
        """Compile for a batch; the first picture pays for it, as that of any such pipeline."""
        if batch == self._batch:
            return
        if self._batch is not None:
            self._load()  # what is compiled cannot be reshaped
        height, width = self._task["height"], self._task["width"]
        self._pipeline.reshape(batch, height, width, self._task["guidance_scale"])
        self._pipeline.compile(
            "CPU",
            INFERENCE_PRECISION_HINT=HINTS[self._task["precision"]],
            INFERENCE_NUM_THREADS=self._task["threads"],
            NUM_STREAMS=1,
            PERFORMANCE_HINT="LATENCY",
        )
        self._batch = batch

    def describe(self):
        """Say which versions and settings draw."""
        names = ("openvino-genai", "openvino", "optimum-intel", "diffusers", "torch")
        return {
            **{name: version(name) for name in names},
            "threads": self._task["threads"],
            "scheduler": self._task["scheduler"] or "the checkpoint's",
            "exported in": "fp32",
            "shapes": "static",
        }

    def draw(self, prompts, seeds, steps):
        """Draw a picture of each prompt; give the seconds of each stage, too."""
        # It draws one prompt, several times: other prompts take turns.
        if len(set(prompts)) == 1:
            return self._draw(prompts[0], seeds, steps)
        pictures = [
            self._draw(prompt, [seed], steps)[0]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return np.concatenate(pictures), {}

    def _draw(self, prompt, seeds, steps):
        self._compile(len(seeds))
        ends = [time.perf_counter()]

        def note(step, count, latents):
            ends.append(time.perf_counter())
            return False

        pictures = self._pipeline.generate(
            prompt,
            num_images_per_prompt=len(seeds),
            num_inference_steps=steps,
            guidance_scale=self._task["guidance_scale"],
            height=self._task["height"],
            width=self._task["width"],
            generator=make_noise(seeds),
            callback=note,
        ).data
        took = self._pipeline.get_performance_metrics()
        encoded = sum(took.get_text_encoder_infer_duration().values()) / 1e3
        begins = [ends[0] + encoded, *ends[1:-1]]
        stages = {
            "text_encoder": encoded,
            "step": [end - begin for begin, end in zip(begins, ends[1:], strict=True)],
            "vae_decoder": took.get_vae_decoder_infer_duration() / 1e3,
        }
        return np.array(pictures), stages


def make_noise(seeds):
    """The noise that diffusers draws on the CPU: each picture's from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    class Noise(openvino_genai.Generator):
        def next(self):
            """One number: only some schedulers ask, and only for one picture."""
            return float(torch.randn(1, generator=generators[0]))

        def randn_tensor(self, shape):
            """Noise of a shape; its first dimension is the pictures."""
            rows = [torch.randn((1, *list(shape)[1:]), generator=each) for each in generators]
            return openvino.Tensor(torch.cat(rows).numpy())

    return Noise()
