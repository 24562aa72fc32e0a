"""stable-diffusion.cpp by its Python package, on the same folder; `docs/benchmark.md` builds it.

It has the sizes of the published networks and their tokenizer built in: other networks it refuses,
and another tokenizer it does not notice.
"""

import json
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

try:
    import stable_diffusion_cpp
except ModuleNotFoundError as error:
    MISSING = f"{error}: pip install stable-diffusion-cpp-python, as docs/benchmark.md says"
else:
    MISSING = ""

FAMILIES = ("sd1", "sd2")
TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
SCHEDULER = "EulerDiscreteScheduler"
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}
# What its table of noise levels is made of; what a file leaves out is so in diffusers, too.
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DEFAULTS = {
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
    "interpolation_type": "linear",
    "timestep_type": "discrete",
}
SPACINGS = ("linspace", "trailing")  # with "leading", diffusers starts from a little more noise
ERROR = 3  # level of a message


class Painter:
    """Draws with `StableDiffusion`; a task says what (`fastdeploy_diffusion.benchmark`)."""

    keeps_builds = False

    def __init__(self, task):
        if task["precision"] not in TYPES:
            raise ValueError(f"stable-diffusion.cpp: {task['precision']}, not {', '.join(TYPES)}")
        if task["device"] != "cpu":
            raise ValueError(f"stable-diffusion.cpp: on the cpu, not on {task['device']}")
        if task["family"] not in FAMILIES:
            raise ValueError(f"stable-diffusion.cpp: {task['family']}, only tried with {FAMILIES}")
        self._schedule = read_schedule(Path(task["model_path"]), task["scheduler"])
        if MISSING:
            raise ModuleNotFoundError(MISSING)
        self._task, self._log = task, Log()
        try:
            self._model = stable_diffusion_cpp.StableDiffusion(
                model_path=task["model_path"],
                vae_decode_only=True,
                n_threads=task["threads"],
                wtype=TYPES[task["precision"]],
                rng_type="cpu",  # torch's stream of noise
                sampler_rng_type="cpu",
                prediction=PREDICTIONS[self._schedule["prediction_type"]],
                verbose=False,
            )
        except ValueError as error:
            raise ValueError(f"{error}: {self._log.join_errors()}") from error
        if not self._model.model:  # a null pointer, which the package lets through
            raise ValueError(f"stable-diffusion.cpp: {self._log.join_errors()}")

    def describe(self):
        """Say which versions and settings draw."""
        return {
            "stable-diffusion-cpp-python": version("stable-diffusion-cpp-python"),
            "built with": stable_diffusion_cpp.sd_get_system_info().decode().strip(),
            "threads": self._task["threads"],
            "scheduler": SCHEDULER,
            "weights": f"{TYPES[self._task['precision']]}, convolutions f16",
            "tokenizer": "its own",
            "batch": "one picture after the other",
        }

    def draw(self, prompts, seeds, steps):
        """Draw a picture of each prompt; give the seconds of each stage, too."""
        if len(set(prompts)) == 1 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
            return self._draw(prompts[0], seeds[0], len(seeds), steps)
        pictures = [
            self._draw(prompt, seed, 1, steps)[0]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return np.concatenate(pictures), {}

    def _draw(self, prompt, seed, count, steps):
        self._log.lines.clear()
        moments = []  # a 0 comes when the first step of a picture begins

        def note(step, total, seconds):
            moments.append((step, time.perf_counter()))

        images = self._model.generate_image(
            prompt=prompt,
            width=self._task["width"],
            height=self._task["height"],
            cfg_scale=max(self._task["guidance_scale"], 1.0),
            sample_method="euler",
            sample_steps=steps,
            sigmas=",".join(map(repr, list_sigmas(self._schedule["timestep_spacing"], steps))),
            seed=seed,
            batch_count=count,
            progress_callback=note,
        )
        took = [end - start for (_, start), (step, end) in pairwise(moments) if step]
        stages = {
            "text_encoder": self._log.measure("generate_image ", "get_learned_condition completed"),
            "step": np.reshape(took, (count, -1)).sum(axis=0).tolist(),
            "vae_decoder": self._log.measure("decoding ", "decode_first_stage completed"),
        }
        return np.stack([np.asarray(each.convert("RGB")) for each in images]), stages


def read_schedule(folder, scheduler):
    """Read what it needs of a folder's ``scheduler_config.json``; refuse what it would not follow.

    Raises:
        ValueError: It samples otherwise, or there is no such file.
    """
    file = folder / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        raise ValueError(f"stable-diffusion.cpp: a diffusers folder, not {folder.name}")
    config = json.loads(file.read_text(encoding="utf-8"))
    name = scheduler or config["_class_name"]
    if name != SCHEDULER:
        raise ValueError(f"stable-diffusion.cpp has no {name} as diffusers has, only {SCHEDULER}")
    config = {k: v for k, v in config.items() if k not in config.get("_use_default_values", ())}
    given = {**DEFAULTS, **config}
    for option, wanted in {**TABLE, **DEFAULTS}.items():
        if given.get(option) != wanted:
            raise ValueError(f"stable-diffusion.cpp has {option}={wanted}, not {given.get(option)}")
    schedule = {
        "prediction_type": config.get("prediction_type", "epsilon"),
        "timestep_spacing": config.get("timestep_spacing", "linspace"),
    }
    for option, allowed in (("prediction_type", PREDICTIONS), ("timestep_spacing", SPACINGS)):
        if schedule[option] not in allowed:
            raise ValueError(
                f"stable-diffusion.cpp: {option}={schedule[option]}, not {', '.join(allowed)}"
            )
    return schedule


def list_sigmas(spacing, steps):
    """The noise levels of diffusers' Euler: one for each step, and the 0 after the last."""
    total = DEFAULTS["num_train_timesteps"]
    roots = np.linspace(TABLE["beta_start"] ** 0.5, TABLE["beta_end"] ** 0.5, total)
    powers = np.cumprod(1 - roots**2)
    if spacing == "linspace":
        timesteps = np.linspace(0, total - 1, steps)[::-1]
    else:
        # Floating point may make one too many, as 61 of 1000 do.
        timesteps = np.round(np.arange(total, 0, -total / steps)[:steps]) - 1
    levels = np.interp(timesteps, np.arange(total), np.sqrt((1 - powers) / powers))
    return [*levels.tolist(), 0.0]


class Log:
    """What the library says, and when."""

    def __init__(self):
        self.lines = []
        # The library keeps only its address.
        self._callback = stable_diffusion_cpp.sd_log_callback(self._note)
        stable_diffusion_cpp.sd_set_log_callback(self._callback, None)

    def _note(self, level, text, data):
        words = text.decode(errors="replace").partition(" - ")[2].strip()
        self.lines.append((time.perf_counter(), level, words))

    def join_errors(self):
        """Its errors, in one line."""
        return "; ".join(text for _, level, text in self.lines if level == ERROR)

    def measure(self, first, last):
        """Seconds between two messages that begin so."""
        start, end = (
            next(moment for moment, _, text in self.lines if text.startswith(begin))
            for begin in (first, last)
        )
        return end - start
