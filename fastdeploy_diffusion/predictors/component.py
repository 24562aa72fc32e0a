"""One network of a pipeline, on the engine that runs it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from fastdeploy_diffusion.adapters.adaptation import Adaptation
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.families.networks.activations import Activations
from fastdeploy_diffusion.int8_report import Int8Report
from fastdeploy_diffusion.predictors.memory_need import estimate_stage
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.tiling import Tiling, TilingChoice
from fastdeploy_diffusion.runtime.program import Signature, fill_shapes
from fastdeploy_diffusion.runtime.session import Arrays, Session
from fastdeploy_diffusion.runtime.session_pool import SessionPool

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.build import ComponentBuild
    from fastdeploy_diffusion.engines.plan import ComponentPlan
    from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession

Interceptor = Callable[[Arrays, Callable[[], Arrays]], Arrays]


@dataclass(frozen=True)
class ComponentReport:
    """The placement of a component as it really runs, and its proof.

    Args:
        fallback: Why this is not what was asked for; ``None`` if it is.
        relative_error: From the Paddle float32 layer; ``None`` until the component is built, and
            where it is `unchecked`. In half precision the root mean square error as a share of the
            output's, and else the largest error as a share of the largest output.
        tolerance: The largest error allowed; ``None`` like the error.
        rounding_error: What rounding to half precision does to the layer itself; ``None`` like the
            error, and in other precisions.
        build_seconds: Until the component was ready, in seconds.
        measured_seconds: Of one run, when `tune` measured it; ``None`` without a plan.
        passed_over: With ``engine="auto"``, why other engines were not taken, by name.
        installable: The pip command of each engine that ``auto`` tries before this one and that is
            not installed, by name.
        passes: How many places each pass rewrote, by name; as many as the model's config promises.
        changes_picture: Those of them that change the picture on purpose, and what else does:
            ``"blended-tiles"``, ``"tiny-decoder"``. The errors are from the layer as passes leave
            it.
        cached: Whether a kept build was loaded; its error was measured when it was built.
        slower: Why its precision is slower than fp32 here, as a clause; empty if it is not.
        target: The GPU architecture that it is built for; ``None`` for the device itself.
        unchecked: Why the build was not compared with the layer: it cannot run here.
        left_out: Default passes that are not applied because they failed on this network, each with
            its failure.
        int8: The layers in int8 and their cost, where int8 was asked for and measured.
        tiling: How it runs in tiles, as ``vae_tiling`` names it; ``None`` where it runs as a whole.
    """

    name: str
    engine: str
    device: str
    precision: str
    fallback: str | None
    relative_error: float | None = None
    tolerance: float | None = None
    rounding_error: float | None = None
    build_seconds: float | None = None
    cached: bool = False
    measured_seconds: float | None = None
    slower: str = ""
    target: str | None = None
    unchecked: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    installable: Mapping[str, str] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)
    changes_picture: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    int8: Int8Report | None = None
    tiling: str | None = None


class Component(ABC):
    """A network that runs at any size that requests ask for.

    Attributes:
        name: For errors and reports.
        report: Of the session lent last; before the first, of the placement.
        int8: For the report, once it is measured.
        pool: Its sessions.
        tiling: Chooses how it runs in tiles; ``None`` where it always runs as a whole.
        changes: What changes the picture on purpose besides passes, for the report.
        adaptation: The adapters in the weights of sessions from the next loan on.
        is_calibrated: Whether text to image runs it, by which int8 is calibrated.
        intercept: Called in place of each run, with its inputs by name and the run itself;
            returns its outputs. ``None`` where nobody records runs.
        replacement: Lent in place of its own sessions, which are not loaded then; whoever sets it
            closes it.
    """

    name: str
    report: ComponentReport
    pool: SessionPool[RecoveringSession]
    is_calibrated: bool = True
    intercept: Interceptor | None = None
    replacement: Session | None = None
    int8: Int8Report | None = None
    tiling: TilingChoice | None = None
    changes: tuple[str, ...] = ()
    adaptation: Adaptation | None = None
    _rows: int = 1  # of a batch, that one picture takes

    @property
    @abstractmethod
    def placement(self) -> Placement:
        """The present engine and build spec."""

    @property
    @abstractmethod
    def network(self) -> Network:
        """The network."""

    def lend(self, signature: Signature, *, keep: bool = False) -> AbstractContextManager[Session]:
        """Lend the session for a signature until the block ends, built now if missing.

        Args:
            keep: Whether it may stay after the last block for the next one with this signature.

        Raises:
            PassError: A pass fails, or changes the numbers.
            AccuracyError: The engine's results differ from the layer's.
            EngineError: The build failed.
        """
        if self.replacement is not None:
            return nullcontext(self.replacement)
        return self.pool.lend(signature, keep=keep)

    def choose_tiling(self, signature: Signature) -> Tiling:
        """Choose how it runs in tiles."""
        return self.tiling.choose(signature) if self.tiling else Tiling.OFF

    def count_activations(self, signature: Signature, sizes: Mapping[str, int]) -> Activations:
        """Count the numbers alive at once in a run of given sizes."""
        shapes = fill_shapes(signature.inputs, sizes)
        if self.tiling is not None:
            return self.tiling.count_activations(signature, shapes)
        return self.network.count_activations(shapes)

    def run_in_windows(self, signature: Signature, wanted: bool) -> bool:
        """Run in windows with the numbers of the whole from now on, or no longer.

        Returns:
            Whether this is possible, and changes anything.
        """
        return False

    def close(self) -> None:
        """Free the engine's memory; running requests fail, and the next one builds again."""
        self.pool.close()

    @property
    def keeps_rows_apart(self) -> bool:
        """Whether a row of a batch does not depend on the others, as far as it was tried."""
        placement = self.placement
        return placement.engine.keeps_rows_apart and placement.spec.device.kind == "cpu"

    @abstractmethod
    def check_adaptation(self) -> None:
        """Refuse adapters that its weights cannot be changed by.

        Raises:
            AdapterError: The engine's builds hold their weights, or nothing is kept; or it is of a
                bundle.
        """

    @abstractmethod
    def adapt(self, adaptation: Adaptation | None) -> None:
        """Bind weights with adapters in them from the next loan on, or the network's own."""

    @abstractmethod
    def check_weights(self) -> None:
        """Refuse weights that are not the network's, before anything is built."""

    @abstractmethod
    def describe_placement(self) -> str:
        """Describe the present placement, in all that its numbers may depend on."""

    @abstractmethod
    def identify(self, signature: Signature) -> str:
        """Compute the digest of all that the numbers of its build depend on."""

    @abstractmethod
    def plan(
        self, signature: Signature, sizes: Mapping[str, int] = MappingProxyType({})
    ) -> ComponentBuild:
        """Plan the build for a signature, without building it."""

    @abstractmethod
    def find_plan(self) -> ComponentPlan | None:
        """Look up the plan of `tune`; ``None`` if it was not tuned here."""

    @abstractmethod
    def tune(
        self,
        signature: Signature,
        *,
        runs: int,
        sizes: Mapping[str, int],
        show: Callable[[str], None],
    ) -> ComponentPlan:
        """Measure every way to run this component, keep what was found, and go by it."""

    def _measure(self, signature: Signature) -> float:
        """Estimate the bytes that a session takes for one picture; infinite on other devices."""
        if self.placement.spec.device.kind != "cpu":
            return math.inf
        need = estimate_stage(self, signature, {"batch": self._rows})
        return need.weights + need.activations

    def _announce(self, session: RecoveringSession) -> None:
        self.report = replace(session.running.report, int8=self.int8)


class Part(NamedTuple):
    """A component, and the signature and sizes that a plan needs of it.

    The sizes are those of free dimensions, by name.
    """

    component: Component
    signature: Signature
    sizes: Mapping[str, int]

    def of_batch(self, rows: int) -> Part:
        """Fill in the number of rows that run at once."""
        return self._replace(sizes={**self.sizes, "batch": rows})


@dataclass(frozen=True)
class Parts:
    """The parts of a plan by their role; iterate for all, in the order in which they run.

    Args:
        texts: Text encoders.
        images: The vision towers of IP-Adapters, and these.
        encoder: The VAE's, where a picture is given.
        controlnets: Those that run with the denoiser, where control is asked for.
    """

    texts: tuple[Part, ...]
    denoiser: Part
    decoder: Part
    encoder: Part | None = None
    controlnets: tuple[Part, ...] = ()
    images: tuple[Part, ...] = ()

    def __iter__(self) -> Iterator[Part]:
        yield from (*self.texts, *self.images)
        if self.encoder is not None:
            yield self.encoder
        yield from (*self.controlnets, self.denoiser, self.decoder)
