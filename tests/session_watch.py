"""Watches the sessions that engines really load, and whether they were closed."""

import pytest

from fastdeploy_diffusion.engines.base import Engine


class SessionWatch:
    """Every session that any engine has loaded, in order.

    Attributes:
        loaded: The component of each.
        most: How many were open at once, at most.
    """

    def __init__(self):
        self.loaded = []
        self.most = 0
        # Held here, so that one that nobody has closed counts as open for good.
        self._sessions = []

    @property
    def open(self):
        """The components whose sessions are open now."""
        return [name for name, each in zip(self.loaded, self._sessions, strict=True) if each]

    def add(self, component, session):
        self.loaded.append(component)
        self._sessions.append(_Watched(session))
        self.most = max(self.most, len(self.open))


class _Watched:
    def __init__(self, session):
        self._session = session

    def __bool__(self):
        return not self._session._closed


@pytest.fixture
def watch(monkeypatch):
    found, load = SessionWatch(), Engine.load

    def load_and_tell(engine, program, spec, artifact):
        session = load(engine, program, spec, artifact)
        found.add(program.name, session)
        return session

    monkeypatch.setattr(Engine, "load", load_and_tell)
    return found
