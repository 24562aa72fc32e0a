"""The methods of a pipeline that build, calibrate and measure its components."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from fastdeploy_diffusion.config import DiffusionConfig
from fastdeploy_diffusion.engines.plan import ComponentPlan
from fastdeploy_diffusion.predictors.component import Component, Parts
from fastdeploy_diffusion.predictors.loop import DenoisingLoop, PlanT
from fastdeploy_diffusion.predictors.residency import RESIDENCIES
from fastdeploy_diffusion.predictors.result import PipelineReport

if TYPE_CHECKING:
    from fastdeploy_diffusion.compiler.build import ComponentBuild


class BuildingMethods(DenoisingLoop[PlanT]):
    """Methods that prepare components before requests need them."""

    _components: tuple[Component, ...]

    @property
    @abstractmethod
    def config(self) -> DiffusionConfig:
        """The configuration that the pipeline was made from."""

    @abstractmethod
    def quantize(self, show: Callable[[str, int, int], None] | None = None) -> PipelineReport:
        """Calibrate the components in int8, and choose the layers for it."""

    @abstractmethod
    def _plan_picture(
        self,
        height: int | None,
        width: int | None,
        chunks: int | None = None,
        shown: int | None = None,
    ) -> PlanT:
        """Plan a picture of a size, in pixels; the model's own by default.

        Args:
            shown: Pictures for each IP-Adapter.
        """

    @abstractmethod
    def _explain_exhaustion(self, plan: PlanT) -> AbstractContextManager[None]:
        """Explain what a plan needs where memory ends."""

    @abstractmethod
    def _find_parts(self, plan: PlanT, encoder: bool = False, *, control: bool = False) -> Parts:
        """List the parts of a plan, with the VAE's encoder and all ControlNets on request."""

    def build(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        chunks: int | None = None,
        shown: int | None = None,
        encoder: bool = False,
        control: bool = True,
    ) -> PipelineReport:
        """Build everything for pictures of a size, in pixels; the model's own by default.

        Args:
            height: In pixels.
            width: Likewise.
            chunks: Of 75 tokens, of a long prompt of ``prompt_syntax="weighted"``.
            shown: Pictures for each IP-Adapter; one by default.
            encoder: Whether the VAE's encoder, too, which requests with pictures need.
            control: Whether for requests with control, where there are ControlNets; else for those
                without.

        Returns:
            The report.

        Raises:
            RequestError: The model does not draw this size, reads no chunks, or is shown nothing.
            CheckpointError: The checkpoint has no encoder.
            EngineError: A network cannot be built.
        """
        plan = self._plan_picture(height, width, chunks, shown)
        self._require_memory(plan)
        self.quantize()
        parts = self._find_parts(plan, encoder, control=control)
        with self._explain_exhaustion(plan), RESIDENCIES[self.config.memory]() as residency:
            residency.begin(parts)
            for part in parts:
                with residency.lend(part):
                    pass  # it is built now, and what may stay stays
        return self.report

    def choose_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Fill in the size of pictures: (width, height), by default the model's own.

        Raises:
            RequestError: The model does not draw this size.
        """
        plan = self._plan_picture(height, width)
        return plan.width, plan.height

    def count_chunks(self, chunks: int | None = None) -> int:
        """Count the chunks of the texts that a build is for: by default 1, or what defaults need.

        Raises:
            RequestError: The model reads no such number.
        """
        return self._plan_picture(None, None, chunks).chunks

    def plan_builds(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        chunks: int | None = None,
        shown: int | None = None,
        encoder: bool = False,
        control: bool = True,
    ) -> "list[ComponentBuild]":
        """Plan the builds for pictures of a size, in pixels, to try passes on; nothing is built.

        They are of the checkpoint's own weights, also where adapters are on.

        Arguments and errors are those of ``build``.
        """
        plan = self._plan_picture(height, width, chunks, shown)
        self.quantize()
        parts = self._find_parts(plan, encoder, control=control)
        plans = [part.component.plan(part.signature) for part in parts]
        return [replace(each, adaptation=None) for each in plans]

    def find_plans(self) -> tuple[ComponentPlan | None, ...]:
        """Look up each component's plan of ``tune``; ``None`` where it was not tuned here."""
        return tuple(each.find_plan() for each in self._components)

    def tune(
        self,
        height: int | None = None,
        width: int | None = None,
        *,
        encoder: bool = False,
        runs: int = 5,
        show: Callable[[str, int, int], None] | None = None,
    ) -> list[ComponentPlan]:
        """Measure every way to run each component for pictures of a size, and keep what was found.

        Pipelines with ``engine="auto"`` take the fastest from then on, this one included if it has
        that engine.

        Args:
            height: In pixels; the model's own if left out.
            width: Likewise.
            encoder: As for ``build``.
            runs: Number of timed runs, after one that is not.
            show: Called before each way that is tried, with its description, the number of
                finished components, and the number of all.

        Returns:
            A plan for each component.

        Raises:
            RequestError: The model does not draw this size.
            ConfigError: There is no cache to keep the plan in.
        """
        plan = self._plan_picture(height, width)
        self._require_memory(plan)
        self.quantize()
        parts = list(self._find_parts(plan, encoder, control=True))
        plans: list[ComponentPlan] = []

        def tell(what: str) -> None:
            if show is not None:
                show(what, len(plans), len(parts))

        for part in parts:
            plans.append(
                part.component.tune(part.signature, runs=runs, sizes=part.sizes, show=tell)
            )
        return plans
