"""Watches the sessions that engines really load, and whether they were closed."""

import pytest

from fastdeploy_diffusion.engines.base import Engine


class SessionWatch:
    """Every session that any engine has loaded, in order.

    Attributes:
        loaded: The component of each.
        most: How many were open at once, at most.
        openings: Those that were open when each was loaded, itself included.
    """

    def __init__(self):
        self.loaded = []
        self.most = 0
        self.openings = []
        self._closed = []

    @property
    def open(self):
        """The components whose sessions are open now."""
        return [name for name, each in zip(self.loaded, self._closed, strict=True) if not each]

    def add(self, component, session):
        """Count a session as open until it is closed."""
        self.loaded.append(component)
        self._closed.append(closings := [])
        self.openings.append(self.open)
        self.most = max(self.most, len(self.open))
        close = session.close
        session.close = lambda: (closings.append(1), close())

    def clear(self):
        """Forget what was loaded so far."""
        self.loaded.clear()
        self._closed.clear()
        self.openings.clear()
        self.most = 0


@pytest.fixture
def watch(monkeypatch):
    found, load = SessionWatch(), Engine.load

    def load_and_tell(engine, program, spec, artifact):
        session = load(engine, program, spec, artifact)
        found.add(program.name, session)
        return session

    monkeypatch.setattr(Engine, "load", load_and_tell)
    return found
