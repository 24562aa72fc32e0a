"""Components whose builds are toy sessions: what holds and closes sessions is the product's own."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace

from toy_session import ToySession

from fastdeploy_diffusion.compiler.build import BuiltSession, ComponentBuild
from fastdeploy_diffusion.compiler.built_component import BuiltComponent
from fastdeploy_diffusion.config import EngineChoice
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.runtime.program import Signature, TensorSpec
from fastdeploy_diffusion.runtime.session_pool import KEPT_BYTES


def make_signature(rows, columns=6):
    """Of another size than that of `toy_session.SIGNATURE`."""
    shape = (rows, columns)
    return Signature(
        (TensorSpec("sample", shape, "float32"),), (TensorSpec("output", shape, "float32"),)
    )


LARGE = make_signature(4)


class Workshop:
    """Makes components, and toy sessions in place of their builds.

    Args:
        share: Of the memory that a component's sessions may take, what one takes.

    Attributes:
        activations: What one takes besides of that memory, by the rows of its input.
        sessions: Those that were made, in order.
        open_before: For each, how many earlier ones were open when it was made.
        compute: What the sessions of an engine compute, or the error that building raises; where
            nothing is said, they double.
        may_build: Building waits for it.
        most_at_once: How many builds were going on at the same time, at most.
    """

    def __init__(self, share=1.01):
        self._weights = int(share * KEPT_BYTES / 4)  # float32
        self.activations = {}
        self.sessions = []
        self.open_before = []
        self.compute = {}
        self.may_build = threading.Event()
        self.may_build.set()
        self.most_at_once = 0
        self._building = 0

    def open_component(
        self,
        engine="openvino",
        name="part",
        *,
        cpu_fallback=True,
        cache=None,
        device="cpu",
        precision="fp32",
        passes=(),
        **choice,
    ):
        workshop = self

        @dataclass(frozen=True)
        class ToyBuild(ComponentBuild):
            def open(self, cache):
                return workshop._build(self)

        return BuiltComponent(
            name,
            EngineChoice(engine, device, precision, 1, **choice),
            cpu_fallback=cpu_fallback,
            # Nothing is read of it but numbers.
            network=SimpleNamespace(
                model="toy",
                role="",
                identify=lambda root: {"toy": name},
                modules=(),
                count_weights=lambda: self._weights,
                count_activations=self._count_activations,
            ),
            passes=passes,
            cache=cache,
            generators={},
            build_class=ToyBuild,
        )

    @property
    def is_building(self):
        return self._building > 0

    def count_open(self):
        return sum(not session.closed for session in self.sessions)

    def _count_activations(self, shapes):
        share = self.activations.get(shapes["sample"][0], 0)
        return Activations(int(share * KEPT_BYTES / 4 / OpenVINOEngine.held_features))

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
        return BuiltSession(session, Accuracy(0.0, 1e-4), {}, cached=False)


def _double(sample, ids=None):
    return {"output": 2 * sample}
