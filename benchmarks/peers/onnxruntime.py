"""Plain ONNX Runtime: the graphs that optimum exports from the same folder, run by optimum.

``pip install "optimum[onnxruntime]" diffusers torch``. The graphs are torch's own, in float32, with
every optimisation that ONNX Runtime does by itself.
"""

import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

try:
    import diffusers
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTStableDiffusionPipeline
except ModuleNotFoundError as error:
    MISSING = f'{error}: pip install "optimum[onnxruntime]" diffusers torch'
else:
    MISSING = ""

FAMILIES = ("sd1", "sd2")


class Painter:
    """Draws with `ORTStableDiffusionPipeline`; a task: `fastdeploy_diffusion.benchmark`."""

    keeps_builds = True

    def __init__(self, task):
        if task["precision"] != "fp32":
            # Its kernels for the CPU have no other, and optimum exports half precision for GPUs.
            raise ValueError(f"onnxruntime: {task['precision']}, not fp32")
        if task["device"] != "cpu":
            raise ValueError(f"onnxruntime: on the cpu, not on {task['device']}")
        if task["family"] not in FAMILIES:
            raise ValueError(f"onnxruntime: {task['family']}, only tried with {FAMILIES}")
        if MISSING:
            raise ModuleNotFoundError(MISSING)
        self._task = task
        torch.set_num_threads(task["threads"])
        folder = Path(task["cache_dir"]) / "exported"
        if not folder.is_dir():
            partial = folder.with_name("unfinished")
            exported = ORTStableDiffusionPipeline.from_pretrained(
                task["model_path"], export=True, safety_checker=None
            )
            exported.save_pretrained(partial)
            os.rename(partial, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._pipeline = ORTStableDiffusionPipeline.from_pretrained(
            folder, provider="CPUExecutionProvider", session_options=options
        )
        if task["scheduler"]:
            # Of the checkpoint: the export has written down the defaults of its former scheduler.
            scheduler = getattr(diffusers, task["scheduler"])
            config = scheduler.load_config(task["model_path"], subfolder="scheduler")
            self._pipeline.scheduler = scheduler.from_config(config)
        self._pipeline.set_progress_bar_config(disable=True)
        self._seconds = {}
        self._watch("text_encoder", "text_encoder")
        self._watch("vae_decoder", "vae_decoder")

    def _watch(self, part, stage):
        """Time every call of a part."""
        network = getattr(self._pipeline, part)
        plain = network.forward

        def timed(*arguments, **keywords):
            started = time.perf_counter()
            result = plain(*arguments, **keywords)
            ended = time.perf_counter()
            self._seconds.setdefault(stage, []).append((started, ended))
            return result

        network.forward = timed

    def describe(self):
        """Say which versions and settings draw."""
        names = ("onnxruntime", "optimum", "optimum-onnx", "diffusers", "torch")
        return {
            **{name: version(name) for name in names},
            "threads": self._task["threads"],
            "scheduler": type(self._pipeline.scheduler).__name__,
            "exported in": "fp32",
        }

    def draw(self, prompts, seeds, steps):
        """Draw a picture of each prompt; give the seconds of each stage, too."""
        ends = []

        def note(pipeline, step, timestep, tensors):
            ends.append(time.perf_counter())
            return tensors

        self._seconds.clear()
        pictures = self._pipeline(
            list(prompts),
            num_inference_steps=steps,
            guidance_scale=self._task["guidance_scale"],
            height=self._task["height"],
            width=self._task["width"],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            callback_on_step_end=note,
        ).images
        stages = {
            name: sum(end - start for start, end in times) for name, times in self._seconds.items()
        }
        if "text_encoder" in self._seconds:
            begins = [self._seconds["text_encoder"][-1][1], *ends[:-1]]
            stages["step"] = [end - begin for begin, end in zip(begins, ends, strict=True)]
        return [np.asarray(each) for each in pictures], stages
