"""OpenVINO GenAI's own pipeline, on what optimum-intel exports from the same folder.

``pip install optimum-intel openvino-genai openvino-tokenizers diffusers torch nncf``. Exported in
float32, and compiled for the one size and batch that is drawn, which is the quickest that it is.

In ``int8`` NNCF quantises weights and activations of the UNet, attention left out, the fastest of
what its tools make; ``int8-hybrid`` is what optimum-intel makes of a UNet by default: int8
convolutions, and int8 weights elsewhere. Both are calibrated with inputs that this library has
recorded while it generated pictures. Layers that are not quantised compute in bfloat16 where the
CPU supports it.
"""

import json
import os
import shutil
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
        f"{error}: pip install optimum-intel openvino-genai openvino-tokenizers diffusers torch "
        "nncf"
    )
else:
    MISSING = ""

FAMILIES = ("sd1", "sd2")
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
QUANTIZED = ("int8", "int8-hybrid")
CALIBRATION_CALLS = 32  # of those that were recorded, evenly chosen; NNCF runs each in float32
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
        precision, known = task["precision"], (*HINTS, *QUANTIZED)
        if precision not in known:
            raise ValueError(f"openvino-genai: {precision}, not {', '.join(known)}")
        if precision in QUANTIZED and not task.get("calibration"):
            raise ValueError(f"openvino-genai: {precision} without inputs to calibrate with")
        if task["device"] != "cpu":
            raise ValueError(f"openvino-genai: on the cpu, not on {task['device']}")
        if task["family"] not in FAMILIES:
            raise ValueError(f"openvino-genai: {task['family']}, only tried with {FAMILIES}")
        if task["scheduler"] and task["scheduler"] not in SCHEDULERS:
            raise ValueError(f"openvino-genai: {task['scheduler']}, not {', '.join(SCHEDULERS)}")
        if MISSING:
            raise ModuleNotFoundError(MISSING)
        instructions = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision in HINTS and precision.upper() not in instructions:
            # Asked for it all the same, OpenVINO would quietly compute in another.
            raise ValueError(f"openvino-genai: this CPU has no {precision}")
        self._hint = HINTS.get(precision) or ("bf16" if "BF16" in instructions else "f32")
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
            if precision in QUANTIZED:
                quantize(partial, precision, Path(task["calibration"]))
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
            INFERENCE_PRECISION_HINT=self._hint,
            INFERENCE_NUM_THREADS=self._task["threads"],
            NUM_STREAMS=1,
            PERFORMANCE_HINT="LATENCY",
        )
        self._batch = batch

    def describe(self):
        """Say which versions and settings draw."""
        names = ["openvino-genai", "openvino", "optimum-intel", "diffusers", "torch"]
        quantized = {}
        if self._task["precision"] in QUANTIZED:
            names.append("nncf")
            quantized = {
                "calls to calibrate with": len(choose_calls(Path(self._task["calibration"]))),
                "beside int8": self._hint,
            }
        return {
            **{name: version(name) for name in names},
            **quantized,
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


def choose_calls(folder):
    """Choose recorded calls of the denoiser, evenly: each a file, and its arrays' keys by input."""
    from safetensors import safe_open

    calls = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            recorded = json.loads(file.metadata()["calls"])
        calls += [(path, inputs) for name, inputs, *_ in recorded if name == "denoiser"]
    most = min(CALIBRATION_CALLS, len(calls))
    return [calls[index * len(calls) // most] for index in range(most)]


def read_inputs(call, model):
    """Read a call as inputs of the exported UNet."""
    from safetensors import safe_open

    path, keys = call
    inputs = {}
    with safe_open(path, "np") as file:
        for port in model.inputs:
            name = port.get_any_name()
            array = file.get_tensor(keys[name])
            if name == "timestep":  # ours has one for each row, all of them equal
                array = array.flat[0].reshape([1] * len(port.get_partial_shape()))
            inputs[name] = array.astype(port.get_element_type().to_dtype())
    return inputs


def quantize(folder, precision, calibration):
    """Quantise the UNet of an export in place, by the tools of its own makers."""
    import nncf

    file = folder / "unet" / "openvino_model.xml"
    model = openvino.Core().read_model(file)
    dataset = nncf.Dataset(choose_calls(calibration), lambda call: read_inputs(call, model))
    finished = folder.with_name("quantized")
    if precision == "int8":
        quantized = nncf.quantize(
            model,
            dataset,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=CALIBRATION_CALLS,
            ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"]),
        )
        (finished / "unet").mkdir(parents=True)
        openvino.save_model(quantized, finished / "unet" / file.name, compress_to_fp16=False)
    else:
        from optimum.intel import OVConfig, OVQuantizer, OVStableDiffusionPipeline
        from optimum.intel.openvino import OVWeightQuantizationConfig
        from optimum.intel.openvino.quantization import OVCalibrationDataset

        settings = OVWeightQuantizationConfig(
            bits=8, quant_method="hybrid", num_samples=CALIBRATION_CALLS
        )
        pipeline = OVStableDiffusionPipeline.from_pretrained(folder, compile=False)
        OVQuantizer.from_pretrained(pipeline).quantize(
            calibration_dataset=OVCalibrationDataset({"unet": dataset}),
            ov_config=OVConfig(quantization_config=settings),
            save_directory=finished,
        )
    # Beside the networks lies what the export alone writes, as tokenizers.
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    shutil.rmtree(finished)


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
