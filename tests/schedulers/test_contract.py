"""What every scheduler promises the denoising loop, whatever its algorithm."""

import inspect

import numpy as np
import pytest
import torch
from published_schedulers import EDM, FLUX_HEUN, FLUX_SCHNELL
from reference_trajectory import (
    LARGEST_ERROR,
    LARGEST_ERROR_OF_MKL,
    SEEDS,
    SHAPE,
    create_reference,
    denoise,
    draw_latents,
    ignore_reference_warnings,
)

from fastdeploy_diffusion.errors import ConfigError, RequestError
from fastdeploy_diffusion.schedulers import SCHEDULERS, create_scheduler
from fastdeploy_diffusion.schedulers.create_flow import create_flow_scheduler

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# Longer than the training schedule, none, negative, and of the wrong type.
NONSENSE = [1001, 0, -1, 2.0, True, None]


FLOW, FLOW_HEUN = "flow-match-euler", "flow-match-heun"
# With those of Flux and EDM, which no caller can switch to.
ALL = (*SCHEDULERS, FLOW, FLOW_HEUN)
OTHER_MODELS = {"edm-euler": EDM, FLOW: FLUX_SCHNELL, FLOW_HEUN: FLUX_HEUN}


def create(name, **options):
    if name in (FLOW, FLOW_HEUN):
        return create_flow_scheduler(OTHER_MODELS[name])
    return create_scheduler(OTHER_MODELS.get(name, {**SD, **options}), name, seeds=SEEDS)


def refuse_noise():
    raise AssertionError("this scheduler draws no noise")


@pytest.mark.parametrize("steps", NONSENSE)
@pytest.mark.parametrize("name", ALL)
def test_nonsense_steps_are_refused(name, steps):
    with pytest.raises(RequestError, match=f"num_inference_steps={steps}"):
        create(name).set_timesteps(steps)


@pytest.mark.parametrize("name", ALL)
def test_nothing_works_before_set_timesteps(name):
    scheduler = create(name)
    with pytest.raises(RequestError, match="set_timesteps"):
        _ = scheduler.timesteps
    with pytest.raises(RequestError, match="set_timesteps"):
        scheduler.step(draw_latents(), 1, draw_latents(), noise=draw_latents)


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_not_changed(name):
    scheduler = create(name)
    scheduler.set_timesteps(10)
    latents, output = draw_latents(), draw_latents(2)
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(latents, timestep)
        scheduler.step(output, timestep, latents, noise=draw_latents)
    np.testing.assert_array_equal(latents, draw_latents())
    np.testing.assert_array_equal(output, draw_latents(2))


@pytest.mark.parametrize("name", ALL)
def test_half_precision_outputs_are_computed_in_single(name):
    scheduler = create(name)
    scheduler.set_timesteps(10)
    timestep = scheduler.timesteps[0]
    output = draw_latents(2).astype(np.float16)
    latents = draw_latents()
    half = scheduler.step(output, timestep, latents, noise=draw_latents)
    scheduler.set_timesteps(10)
    single = scheduler.step(output.astype(np.float32), timestep, latents, noise=draw_latents)
    np.testing.assert_array_equal(half, single)


@pytest.mark.parametrize(
    "name",
    sorted({*ALL} - {"ddpm", "euler-ancestral", "kdpm2-ancestral", "lcm"}),
)
def test_deterministic_schedulers_draw_nothing(name):
    scheduler = create(name)
    scheduler.set_timesteps(10)
    latents = draw_latents()
    for timestep in scheduler.timesteps:
        latents = scheduler.step(denoise(latents, timestep), timestep, latents, noise=refuse_noise)


@pytest.mark.parametrize("name", ALL)
def test_outputs_of_another_shape_are_refused(name):
    scheduler = create(name)
    scheduler.set_timesteps(10)
    guided = np.concatenate([draw_latents(), draw_latents()])
    with pytest.raises(RequestError, match="classifier-free guidance"):
        scheduler.step(guided, scheduler.timesteps[0], draw_latents(), noise=draw_latents)


@pytest.mark.parametrize("name", ALL)
def test_timesteps_of_another_request_are_refused(name):
    scheduler = create(name)
    scheduler.set_timesteps(10)
    with pytest.raises(RequestError, match="timestep 7"):
        scheduler.step(draw_latents(), 7, draw_latents(), noise=draw_latents)


@pytest.mark.parametrize("name", sorted({*ALL} - {"pndm"}))
def test_timesteps_out_of_order_are_refused(name):
    scheduler = create(name)
    scheduler.set_timesteps(3)
    first = scheduler.timesteps[0]
    scheduler.step(draw_latents(), first, draw_latents(), noise=draw_latents)
    with pytest.raises(RequestError, match="in order"):
        scheduler.step(draw_latents(), first, draw_latents(), noise=draw_latents)
    for timestep in scheduler.timesteps[1:]:
        scheduler.step(draw_latents(), timestep, draw_latents(), noise=draw_latents)
    with pytest.raises(RequestError, match="every step was taken"):
        scheduler.step(draw_latents(), timestep, draw_latents(), noise=draw_latents)


@pytest.fixture(params=ALL)
def image_to_image(request):
    """Each scheduler with that of diffusers, both begun at their fifth step of ten."""
    options = {"skip_prk_steps": True, "timestep_spacing": "leading", "steps_offset": 1}
    scheduler = create(request.param, **options)
    config = OTHER_MODELS.get(request.param, {**SD, **options})
    reference = create_reference(config, scheduler.diffusers_name, 10)
    assert scheduler.order == reference.order
    scheduler.set_timesteps(10)
    begin = 4 * reference.order
    scheduler.set_begin_index(begin)
    if hasattr(reference, "set_begin_index"):
        reference.set_begin_index(begin)
    return scheduler, reference, reference.timesteps[begin:]


def test_a_request_begins_with_noised_latents_and_takes_the_rest_of_its_steps(image_to_image):
    scheduler, reference, timesteps = image_to_image
    np.testing.assert_allclose(scheduler.timesteps, timesteps.numpy(), rtol=1e-6)
    original, drawn = draw_latents(3), draw_latents(4)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    accepted = inspect.signature(reference.step).parameters
    options = {"generator": generators[1], "eta": 0.0}
    options = {key: value for key, value in options.items() if key in accepted}

    def noise_reference(timestep):
        arguments = torch.from_numpy(original), torch.from_numpy(drawn), timestep.expand(SHAPE[0])
        if hasattr(reference, "add_noise"):
            return reference.add_noise(*arguments)
        return reference.scale_noise(arguments[0], arguments[2], arguments[1])

    ours = scheduler.add_noise(original, drawn, scheduler.timesteps[0])
    assert ours.dtype == np.float32
    theirs = noise_reference(timesteps[0])
    assert_close(ours, theirs)
    for given, wanted in zip(scheduler.timesteps, timesteps, strict=True):
        # Inpainting noises the original to the level of each step as well.
        assert_close(scheduler.add_noise(original, drawn, given), noise_reference(wanted))
        output = denoise(scheduler.scale_model_input(ours, given), given)
        ours = scheduler.step(
            output,
            given,
            ours,
            noise=lambda: torch.randn(SHAPE, generator=generators[0]).numpy(),
        )
        scale = getattr(reference, "scale_model_input", lambda latents, _: latents)
        output = torch.from_numpy(denoise(scale(theirs, wanted).numpy(), wanted))
        with ignore_reference_warnings():
            theirs = reference.step(output, wanted, theirs, **options).prev_sample
        is_sde = scheduler.diffusers_name == "DPMSolverSDEScheduler"
        assert_close(ours, theirs, LARGEST_ERROR_OF_MKL if is_sde else LARGEST_ERROR)
    with pytest.raises(RequestError, match="every step was taken"):
        scheduler.step(ours, given, ours, noise=draw_latents)


def assert_close(ours, theirs, least=1e-4):
    assert np.abs(ours - theirs.numpy()).max() < least * theirs.abs().max()


@pytest.mark.parametrize("name", ALL)
def test_a_begin_counts_for_one_request_and_leaves_a_step(name):
    scheduler = create(name)
    with pytest.raises(RequestError, match="set_timesteps"):
        scheduler.set_begin_index(0)
    scheduler.set_timesteps(10)
    whole = scheduler.timesteps
    if name != "pndm":
        scheduler.set_begin_index(len(whole) - 1)
        np.testing.assert_array_equal(scheduler.timesteps, whole[-1:])
        np.testing.assert_array_equal(scheduler.planned_timesteps, whole)
        with pytest.raises(RequestError, match=f"(?s)not one of this request's.*{whole[-1]}"):
            scheduler.index_of(whole[0])
    for index in (-1, len(whole)):
        with pytest.raises(RequestError, match=f"begin at index {index}"):
            scheduler.set_begin_index(index)
    scheduler.set_timesteps(10)
    np.testing.assert_array_equal(scheduler.timesteps, whole)
    scheduler.step(draw_latents(), whole[0], draw_latents(), noise=draw_latents)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "lcm", "tcd"])
def test_pure_noise_cannot_be_denoised_by_its_noise(name):
    config = {**SD, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    scheduler = create_scheduler(config, name)
    scheduler.set_timesteps(10)
    with pytest.raises(ConfigError, match="rescale_betas_zero_snr"):
        scheduler.step(draw_latents(), 999, draw_latents(), noise=draw_latents)


OTHER_SPACINGS = {"lcm", "tcd", "edm-euler", "dpm-solver-singlestep"}


@pytest.mark.parametrize("name", sorted({*SCHEDULERS} - OTHER_SPACINGS))
@pytest.mark.parametrize("steps", [61, 499])
def test_trailing_never_goes_below_timestep_zero(name, steps):
    """numpy.arange yields one entry too many for some counts; diffusers keeps it, at -1."""
    config = {**SD, "timestep_spacing": "trailing", "skip_prk_steps": True}
    scheduler = create_scheduler(config, name, seeds=SEEDS)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.min() >= 0
    spaced = scheduler.timesteps
    if name in ("kdpm2", "kdpm2-ancestral", "dpm-solver-sde"):
        spaced = spaced[::2]  # between them, the middles of steps
    assert len(np.unique(spaced)) == steps


@pytest.mark.parametrize("name", ["ddim", "pndm", "euler"])
def test_an_offset_past_the_training_schedule_is_refused(name):
    config = {**SD, "timestep_spacing": "leading", "steps_offset": 1}
    scheduler = create_scheduler(config, name)
    scheduler.set_timesteps(10)
    with pytest.raises(RequestError, match="steps_offset=1"):
        scheduler.set_timesteps(1000)
    with pytest.raises(RequestError, match="no timesteps"):
        _ = scheduler.timesteps


def test_runge_kutta_cannot_start_in_the_middle():
    scheduler = create("pndm")
    scheduler.set_timesteps(10)
    with pytest.raises(RequestError, match="skip_prk_steps"):
        scheduler.set_begin_index(4)


def test_runge_kutta_needs_more_than_three_steps():
    with pytest.raises(RequestError, match="skip_prk_steps"):
        create("pndm").set_timesteps(3)


def test_lcm_takes_no_more_steps_than_it_was_distilled_on():
    with pytest.raises(RequestError, match="original_inference_steps=50"):
        create("lcm").set_timesteps(51)


def test_lcm_draws_for_every_step_but_the_last():
    scheduler = create("lcm")
    scheduler.set_timesteps(4)
    draws = []
    for timestep in scheduler.timesteps:
        scheduler.step(
            draw_latents(),
            timestep,
            draw_latents(),
            noise=lambda: draws.append(1) or draw_latents(),
        )
    assert len(draws) == 3


@pytest.mark.parametrize("name", ALL)
def test_add_noise_reaches_any_timestep_between_steps(name):
    """Inpainting noises the original to the timestep that comes next."""
    scheduler = create(name)
    scheduler.set_timesteps(10)
    following = scheduler.timesteps[-1]
    before = scheduler.add_noise(draw_latents(3), draw_latents(4), following)
    scheduler.step(draw_latents(), scheduler.timesteps[0], draw_latents(), noise=draw_latents)
    after = scheduler.add_noise(draw_latents(3), draw_latents(4), following)
    np.testing.assert_array_equal(before, after)
