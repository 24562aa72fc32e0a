"""One scheduler serves request after request, each as a fresh one would, whatever came before."""

import numpy as np
import pytest
from published_schedulers import PUBLISHED
from reference_trajectory import denoise, draw_latents, walk

from fastdeploy_diffusion.errors import RequestError

every_scheduler = pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
# Of the other request: no two plans have anything in common.
OTHER_STEPS = 4


def assert_same(given, wanted):
    np.testing.assert_array_equal(given.timesteps, wanted.timesteps)
    np.testing.assert_array_equal(given.inputs, wanted.inputs)
    np.testing.assert_array_equal(given.latents, wanted.latents)
    assert given.next_draw == wanted.next_draw


def take_steps(scheduler, calls):
    """Take the first steps of a plan, from other latents and with other noise than `walk`."""
    latents = draw_latents(9)
    for timestep in scheduler.timesteps[:calls]:
        output = denoise(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(output, timestep, latents, noise=lambda: draw_latents(8))


@every_scheduler
def test_whole_requests_follow_each_other(published):
    scheduler = published.make()
    for steps, plan in (
        (10, published.plan),
        (10, published.plan),
        (OTHER_STEPS, published.other_plan),
        (OTHER_STEPS, published.other_plan),
        (10, published.plan),
    ):
        assert_same(walk(scheduler, steps, plan=plan), walk(published.make(), steps, plan=plan))


@every_scheduler
def test_an_abandoned_request_leaves_nothing_behind(published):
    """Cancelled between two calls: of one step, or of the several that some steps are made of."""
    wanted = walk(published.make(), 10, plan=published.plan)
    for calls in range(OTHER_STEPS + 1):
        scheduler = published.make()
        scheduler.set_timesteps(OTHER_STEPS, **published.other_plan)
        take_steps(scheduler, calls)
        assert_same(walk(scheduler, 10, plan=published.plan), wanted)


@every_scheduler
def test_a_refused_plan_leaves_nothing_behind(published):
    scheduler = published.make()
    scheduler.set_timesteps(OTHER_STEPS, **published.other_plan)
    take_steps(scheduler, 1)
    with pytest.raises(RequestError):
        scheduler.set_timesteps(0, **published.plan)
    wanted = walk(published.make(), 10, plan=published.plan)
    assert_same(walk(scheduler, 10, plan=published.plan), wanted)


@every_scheduler
def test_two_instances_share_nothing(published):
    """Between any two steps of the one, the other serves a whole request."""
    wanted = walk(published.make(), 10, plan=published.plan)
    other = published.make()

    def disturb():
        other.set_timesteps(OTHER_STEPS, **published.other_plan)
        take_steps(other, len(other.timesteps))

    assert_same(walk(published.make(), 10, plan=published.plan, between=disturb), wanted)
