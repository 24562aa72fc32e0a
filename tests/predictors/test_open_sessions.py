"""Sessions of real engines over many changes of size, failures included: only a few are open."""

import numpy as np
import pytest
from runnable import CPU_ENGINES

from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.engines.base import Engine
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.predictors.vae import VAEDecoder
from fastdeploy_diffusion.runtime import session_pool

SIZES = (2, 3, 4, 5, 6)
KEPT = 3  # fewer than there are sizes
CHANGES = 50


@pytest.fixture
def break_load(monkeypatch, watch):
    """Lets no engine load anything while the list is not empty."""
    reasons, load = [], Engine.load

    def load_or_fail(engine, *args):
        if reasons:
            raise EngineError(reasons[0])
        return load(engine, *args)

    monkeypatch.setattr(Engine, "load", load_or_fail)
    return reasons


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.filterwarnings("ignore:.*the kept build is made again")
def test_no_more_are_open_than_are_kept(engine, tiny_sd1, tmp_path, monkeypatch, watch, break_load):
    monkeypatch.setattr(session_pool, "KEPT_SESSIONS", KEPT)
    config = DiffusionConfig(model_path=tiny_sd1, engine=engine, passes=[], cache_dir=tmp_path)
    decoder = VAEDecoder(open_checkpoint(tiny_sd1), config)
    random, outcomes = np.random.default_rng(7), []

    def decode(side, *, keep):
        latents = random.standard_normal((1, decoder.config.latent_channels, side, side))
        with decoder.component.lend(decoder.signature(side, side), keep=keep) as session:
            assert len(watch.open) <= KEPT
            decoder.decode(session, latents.astype(np.float32))
            if random.random() < 0.2:
                raise KeyboardInterrupt

    for change in range(CHANGES):
        if change % 10 == 9:
            break_load.append("broken")
        try:
            decode(int(random.choice(SIZES)), keep=random.random() < 0.9)
            outcomes.append("drawn")
        except (EngineError, KeyboardInterrupt) as error:
            outcomes.append(type(error).__name__)
        break_load.clear()
        assert len(watch.open) == len(decoder.component.pool.sessions) <= KEPT
    assert {"drawn", "EngineError", "KeyboardInterrupt"} == set(outcomes)
    assert watch.most <= KEPT
    assert len(watch.loaded) > len(SIZES)
    decoder.component.close()
    assert watch.open == []


@pytest.mark.filterwarnings("error::UserWarning")
def test_an_engine_that_fails_leaves_none_of_its_own(tiny_sd1, tmp_path, monkeypatch, watch):
    config = DiffusionConfig(model_path=tiny_sd1, engine="onnxruntime", passes=[])
    decoder = VAEDecoder(open_checkpoint(tiny_sd1), config)
    latents = np.ones((1, decoder.config.latent_channels, 2, 2), np.float32)

    def visit(*sides):
        for side in sides:
            with decoder.component.lend(decoder.signature(side, side), keep=True):
                pass

    visit(2, 3, 4)
    with (
        decoder.component.lend(decoder.signature(2, 2), keep=True) as session,
    ):
        monkeypatch.setattr(session.running.session, "_run", lambda feeds: 1 / 0)
        with pytest.warns(FallbackWarning, match="division by zero"):
            decoder.decode(session, latents)
        assert len(watch.open) == 1
    assert decoder.component.report.engine == "paddle"
    visit(3, 4, 2)
    assert [each.engine for each in decoder.component.pool.sessions] == ["paddle"] * 3
    assert len(watch.open) == 3
    decoder.component.close()
    assert watch.open == []
