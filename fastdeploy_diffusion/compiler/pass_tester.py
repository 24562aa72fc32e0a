"""Trials of single passes on a component: number of matches, error, and speed."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import Self

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.compiler.graph_results import refuse_graph_pass, sum_results
from fastdeploy_diffusion.compiler.pass_blame import find_guilty_passes
from fastdeploy_diffusion.compiler.turns import TurnTimings, time_in_turns
from fastdeploy_diffusion.errors import AccuracyError, PassError
from fastdeploy_diffusion.export.graph_file import prepare_graph, try_graph_pass
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.passes.base import LayerPass, apply_passes
from fastdeploy_diffusion.passes.contract import Pass
from fastdeploy_diffusion.passes.graph_pass import GraphPass
from fastdeploy_diffusion.runtime.pass_result import PassResult
from fastdeploy_diffusion.runtime.program import Program
from fastdeploy_diffusion.runtime.session import Session


@dataclass(frozen=True)
class PassTrial:
    """The result of one pass on one component.

    Args:
        matched: How many places it rewrote; ``None`` if it failed.
        expected: How many the model's config promises; ``None`` where nothing is promised.
        skipped: Why it refused places that match, by their names.
        error: Largest difference of the rewritten network on the engine from the Paddle float32
            layer as it was, or as the pass changes it on purpose, relative to that layer's largest
            output; ``None`` if nothing was built.
        problem: Why the pass cannot be used here; empty if it can.
        timings: Seconds with and without it; ``None`` if they were not measured.
        changes_picture: Whether it changes the picture of this component on purpose.
    """

    component: str
    name: str
    matched: int | None
    expected: int | None
    skipped: Mapping[str, str]
    error: float | None = None
    problem: str = ""
    timings: TurnTimings | None = None
    changes_picture: bool = False


class PassTester:
    """Tries passes on one component; close it to free its builds.

    Nothing is kept on disk: trials must not push out builds that are used.
    """

    def __init__(self, build: ComponentBuild, *, measure: bool) -> None:
        self._build = build
        self._measure = measure
        self._plain: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the build without passes."""
        if self._plain is not None:
            self._plain.close()
            self._plain = None

    def try_pass(self, each: Pass) -> PassTrial:
        """Apply a pass alone; if it fires as often as it should, build, prove and time it.

        Raises:
            EngineError: The engine fails, and the pass is not to blame.
        """
        try:
            result = self._count(each)
        except PassError as error:
            return PassTrial(self._build.name, each.name, None, None, {}, problem=error.problem)
        trial = PassTrial(
            self._build.name,
            result.name,
            result.count,
            result.expected,
            result.skipped,
            changes_picture=each.changes_picture and result.count > 0,
        )
        if not result.is_as_promised:
            return replace(trial, problem=_explain_count(each, result))
        return self._build_and_time(each, trial) if result.count else trial

    def build_with(self, passes: Sequence[Pass]) -> tuple[float | None, TurnTimings | None]:
        """Build with passes, all together, and prove and time that.

        Returns:
            The error, as in `PassTrial`, and the seconds without and with them, if measured.

        Raises:
            PassError: A pass does not fire as often as it should.
            AccuracyError: The numbers change.
            EngineError: The build fails.
        """
        built = self._build.with_passes(passes).open(None)
        with built.session as session:
            return built.relative_error, self._time(session) if self._measure else None

    def _build_and_time(self, each: Pass, trial: PassTrial) -> PassTrial:
        try:
            error, timings = self.build_with([each])
        except AccuracyError as failure:
            return replace(trial, error=failure.relative_error, problem=failure.problem)
        except Exception as failure:
            if guilty := find_guilty_passes(self._build.with_passes([each]), failure):
                return replace(trial, problem=guilty[each.name].problem)
            raise
        return replace(trial, error=error, timings=timings)

    def _count(self, each: Pass) -> PassResult:
        """Apply a pass alone to the layer, or to the graph that the engine would get."""
        if isinstance(each, LayerPass):
            (result,), _ = apply_passes([each], self._build.network.sketch(), strict=False)
            return result
        assert isinstance(each, GraphPass)
        engine, spec = self._build.placement.engine, self._build.placement.spec
        if engine.dialect is None:
            return refuse_graph_pass(each, engine)
        if each.is_native and (refusal := engine.refuse_native(spec)):
            return PassResult(each.name, 0, 0, {"": refusal})
        done = try_graph_pass(self._graph, each, engine.dialect)
        return sum_results(each, self._layer, engine, done)

    @functools.cached_property
    def _layer(self) -> Any:
        return self._build.network.sketch()

    @functools.cached_property
    def _graph(self) -> Any:
        build = self._build
        program = Program(build.name, self._layer, build.inputs, build.outputs)
        with tempfile.TemporaryDirectory(prefix="fastdeploy-diffusion-") as folder:
            return prepare_graph(export_onnx(program, Path(folder)))

    def _time(self, session: Session) -> TurnTimings:
        if self._plain is None:
            self._plain = self._build.with_passes(()).open(None).session
        feeds = self._build.draw_feeds()
        return time_in_turns(self._plain, session, feeds)


def _explain_count(each: Pass, result: PassResult) -> str:
    return f"the pass {each} rewrote {result.count} places of {result.expected}"
