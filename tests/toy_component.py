"""Components whose builds are toy sessions: what holds and closes sessions is the product's own."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace

from toy_session import ToySession

from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.predictors.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.predictors.component import Component
from fastdeploy_diffusion.program import Signature, TensorSpec

# Another size than that of `toy_session.SIGNATURE`.
LARGE = Signature(
    (TensorSpec("sample", (4, 6), "float32"),), (TensorSpec("output", (4, 6), "float32"),)
)


class Workshop:
    """Makes components, and toy sessions in place of their builds.

    Attributes:
        sessions: Those that were made, in order.
        open_before: For each, how many earlier ones were open when it was made.
        compute: What the sessions of an engine compute, or the error that building raises; where
            nothing is said, they double.
        may_build: Building waits for it.
        most_at_once: How many builds were going on at the same time, at most.
    """

    def __init__(self):
        self.sessions = []
        self.open_before = []
        self.compute = {}
        self.may_build = threading.Event()
        self.may_build.set()
        self.most_at_once = 0
        self._building = 0

    def open_component(self, engine="openvino", name="part", cpu_fallback=True):
        workshop = self

        @dataclass(frozen=True)
        class ToyBuild(ComponentBuild):
            def open(self, cache):
                return workshop._build(self)

        return Component(
            name,
            EngineChoice(engine, "cpu", "fp32", 1),
            cpu_fallback=cpu_fallback,
            network=SimpleNamespace(model="toy"),  # nothing is read of it
            passes=(),
            cache=None,
            generators={},
            build_class=ToyBuild,
        )

    @property
    def is_building(self):
        return self._building > 0

    def count_open(self):
        return sum(not session.closed for session in self.sessions)

    def _build(self, build):
        self._building += 1
        self.most_at_once = max(self.most_at_once, self._building)
        assert self.may_build.wait(20)
        self._building -= 1
        self.open_before.append(self.count_open())
        compute = self.compute.get(build.placement.engine.name, _double)
        if isinstance(compute, Exception):
            raise compute
        session = ToySession(compute, Signature(build.inputs, build.outputs))
        session.engine = build.placement.engine.name
        self.sessions.append(session)
        return BuiltSession(session, 0.0, {}, cached=False)


def _double(sample, ids=None):
    return {"output": 2 * sample}
