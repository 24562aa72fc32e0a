"""What every test starts with: its core, Paddle imported in the library's quiet way, its cache."""

import os

import pytest
from git_history import is_ancestor, name_lack_of_history
from worker_core import take_one_core

take_one_core()

import fastdeploy_diffusion.paddle_runtime  # noqa: E402, F401

# Fixtures for every room. A fixture that a test module imports would be made again for it, also one
# of the session.
pytest_plugins = [
    "session_watch",
    "tiny_checkpoint",
    "tiny_flux",
    "tiny_sdxl",
    "small_presets",  # made like tiny_flux
    "user_distribution",
]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Builds of the tests are kept for the tests, not in the user's own cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def history():
    """Tells whether a commit is among those that led here."""
    if reason := name_lack_of_history():
        pytest.skip(reason)
    return is_ancestor
