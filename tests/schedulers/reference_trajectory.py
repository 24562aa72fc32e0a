"""Walk a scheduler of ours and its diffusers counterpart through the same trajectory."""

import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import numpy as np
import pytest
import torch

from fastdeploy_diffusion.schedulers import Scheduler, create_scheduler

SHAPE = (2, 4, 6, 10)
SEEDS = [5, 2**40]  # of schedulers that draw the noise of each picture by themselves
# Packages without which diffusers lacks a class.
NEEDED = {"LMSDiscreteScheduler": "scipy", "DPMSolverSDEScheduler": "torchsde"}
# Relative. A step from the noise level 4096 to 18, or from 15 to 0.03, cancels most of a float32:
# 1e-6 is left of most steps, and of these, by the processor that torch runs on, up to 4e-5. 9e-5
# is what cancels of the float32 logarithms of third-order DEIS in diffusers.
LARGEST_ERROR = 1e-4
# DPM++ SDE rounds the times of its noise to 1e-6, which the last bit of a noise level may decide;
# a path moves by thousandths in such a time. MKL's exponentials and roots, which torch uses where
# it has them, are that bit off for some numbers; then the largest error that was seen is 1e-3.
LARGEST_ERROR_OF_MKL = 5e-3


@dataclass
class Trajectory:
    latents: np.ndarray  # (calls + 1, *SHAPE), the first included
    inputs: np.ndarray  # (calls, *SHAPE), what the denoiser saw
    timesteps: np.ndarray
    next_draw: float  # equal only where the same noise was drawn before


def denoise(latents: np.ndarray, timestep: float, *, learned_variance: bool = False) -> np.ndarray:
    """A deterministic stand-in for a network that depends on every latent and on the timestep."""
    phase = np.linspace(0, 2, latents.size, dtype=np.float32).reshape(latents.shape)
    wave = np.tanh(0.8 * latents + phase - float(timestep) / 1000)
    output = 0.7 * wave + 0.2 * latents
    # Positive, as the variance type "learned" takes its root.
    return np.concatenate([output, np.abs(wave)], axis=1) if learned_variance else output


def draw_latents(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


@contextmanager
def ignore_reference_warnings() -> Iterator[None]:
    """Silence what diffusers itself causes, whatever our code does."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*dpmsolver`? is deprecated", category=FutureWarning
        )
        # It converts tensors with np.array, which torch answers with a warning under numpy 2.
        for name in ("__array__ imp", "__array_wrap__ must"):
            warnings.filterwarnings("ignore", message=name, category=DeprecationWarning)
        # It asks torchsde for times that the other has rounded.
        warnings.filterwarnings("ignore", message="Should have t[ab]", category=UserWarning)
        yield


def missing_package(class_name: str) -> str | None:
    """The package without which diffusers lacks a class, where it is not installed."""
    package = NEEDED.get(class_name)
    return package if package and importlib.util.find_spec(package) is None else None


@contextmanager
def round_correctly() -> Iterator[None]:
    """Let torch round exponentials and powers to the nearest float32, as without MKL."""
    exp, power = torch.Tensor.exp, torch.Tensor.__pow__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "exp", lambda self: exp(self.double()).to(self.dtype))
        patch.setattr(
            torch.Tensor, "__pow__", lambda self, n: power(self.double(), n).to(self.dtype)
        )
        yield


def create_reference(config: dict[str, Any], class_name: str, steps: int) -> Any:
    """The diffusers scheduler, planned for a number of steps."""
    if package := missing_package(class_name):
        pytest.skip(f"{package}, which {class_name} of diffusers needs, is not installed")
    if class_name == "DPMSolverSDEScheduler":
        config = {"noise_sampler_seed": SEEDS, **config}
    with ignore_reference_warnings():
        scheduler = getattr(diffusers, class_name).from_config(config)
        scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        # Without it, diffusers starts at the second of two equal first timesteps, and runs over.
        scheduler.set_begin_index(0)
    return scheduler


def walk(
    scheduler: Scheduler,
    steps: int,
    *,
    plan: Mapping[str, Any] = MappingProxyType({}),
    between: Callable[[], None] = lambda: None,
    **denoiser: bool,
) -> Trajectory:
    """Take a whole request's steps.

    ``plan`` goes to ``set_timesteps`` as well; ``between`` is called before each step.
    """
    generator = torch.Generator().manual_seed(1)
    scheduler.set_timesteps(steps, **plan)
    latents, inputs = [scheduler.init_noise_sigma * draw_latents()], []
    for timestep in scheduler.timesteps:
        between()
        inputs.append(scheduler.scale_model_input(latents[-1], timestep))
        output = denoise(inputs[-1], timestep, **denoiser)
        following = scheduler.step(
            output,
            timestep,
            latents[-1],
            noise=lambda: torch.randn(SHAPE, generator=generator).numpy(),
        )
        assert following.dtype == np.float32
        latents.append(following)
    return _record(latents, inputs, scheduler.timesteps, generator)


def walk_reference(scheduler: Any, eta: float, **denoiser: bool) -> Trajectory:
    generator = torch.Generator().manual_seed(1)
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": generator, "eta": eta}
    options = {key: value for key, value in options.items() if key in accepted}
    latents, inputs = [float(scheduler.init_noise_sigma) * draw_latents()], []
    for timestep in scheduler.timesteps:
        current = torch.from_numpy(latents[-1])
        inputs.append(scheduler.scale_model_input(current, timestep).numpy())
        output = torch.from_numpy(denoise(inputs[-1], timestep, **denoiser))
        with ignore_reference_warnings():
            following = scheduler.step(output, timestep, current, **options).prev_sample
        latents.append(following.numpy())
    return _record(latents, inputs, scheduler.timesteps.numpy(), generator)


def compare(
    config: dict[str, Any],
    steps: int,
    *,
    name: str | None = None,
    eta: float = 0.0,
    reference: tuple[str, dict[str, Any]] | None = None,
    largest_error: float = LARGEST_ERROR,
    **denoiser: bool,
) -> float:
    """Both trajectories must agree in timesteps, noise, denoiser inputs and latents.

    ``reference`` gives the class in diffusers and options that it has over those of the config.
    With the usual ``largest_error``, diffusers' DPM++ SDE is rounded correctly.
    Returns the largest error of a step, relative to that step's largest value.
    """
    scheduler = create_scheduler(config, name, eta=eta, seeds=SEEDS)
    class_name, options = reference or (type(scheduler).diffusers_name, {})
    ours = walk(scheduler, steps, **denoiser)
    rounds = class_name == "DPMSolverSDEScheduler" and largest_error == LARGEST_ERROR
    with round_correctly() if rounds else nullcontext():
        theirs = walk_reference(
            create_reference({**config, **options}, class_name, steps), eta, **denoiser
        )
    # Some of diffusers are float64, which its pipelines round for the denoiser.
    assert ours.timesteps.dtype.kind == theirs.timesteps.dtype.kind
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-5)
    assert ours.next_draw == theirs.next_draw
    error = max(
        *_relative_errors(ours.inputs, theirs.inputs),
        *_relative_errors(ours.latents, theirs.latents),
    )
    assert error < largest_error, f"{error:.2e}"
    return error


def _relative_errors(ours: np.ndarray, theirs: np.ndarray) -> Iterator[float]:
    assert np.isfinite(theirs).all()
    for mine, expected in zip(ours, theirs, strict=True):
        yield float(np.abs(mine - expected).max() / np.abs(expected).max())


def _record(
    latents: list[np.ndarray],
    inputs: list[np.ndarray],
    timesteps: np.ndarray,
    generator: torch.Generator,
) -> Trajectory:
    next_draw = torch.randn(1, generator=generator).item()
    return Trajectory(np.stack(latents), np.stack(inputs), timesteps, next_draw)
