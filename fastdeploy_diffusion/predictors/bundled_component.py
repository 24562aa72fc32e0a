"""Components of a bundle, which were built elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NoReturn

from fastdeploy_diffusion.adapters.adaptation import Adaptation
from fastdeploy_diffusion.checkpoints.bundle_folder import BundledWeights
from fastdeploy_diffusion.device import parse_device
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.placement import Placement
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.errors import (
    AdapterError,
    CacheError,
    ConfigError,
    EngineUnavailableError,
    RequestError,
)
from fastdeploy_diffusion.int8_report import Int8Report
from fastdeploy_diffusion.machine import INT8_FLAGS
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.predictors.component import Component, ComponentReport
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession, Running
from fastdeploy_diffusion.predictors.stage_programs import find_programs
from fastdeploy_diffusion.predictors.stage_session import start_programs
from fastdeploy_diffusion.runtime.bundle import BundledBuild, check_files
from fastdeploy_diffusion.runtime.checked_files import CheckedFiles
from fastdeploy_diffusion.runtime.program import Program, Signature
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.runtime.session_pool import SessionPool


class BundledComponent(Component):
    """Loads its builds; nothing is built, derived or compared here, and there is no fallback.

    Args:
        weights: Its weights, and the bundle.
        checked: The bundle's files whose checksums were compared before; ``None`` to compare all.

    Raises:
        EngineUnavailableError: The engine that it was built for cannot run here.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        weights: BundledWeights,
        threads: int | None,
        checked: CheckedFiles | None = None,
    ) -> None:
        self.name, self._network, self._weights, self._checked = name, network, weights, checked
        self._built = built = weights.bundle.components[name]
        spec = BuildSpec(parse_device(built.device), built.precision, threads)
        self._placement = Placement(create_engine(built.engine), spec)
        self._require_engine()
        self._require_products()
        slower = self._placement.engine.supports(spec).slower
        self.report = ComponentReport(
            name, built.engine, built.device, built.precision, None, slower=slower
        )
        self.int8 = Int8Report.parse(built.int8) if built.int8 else None
        self.pool = SessionPool(self._make, self._measure, lambda session: True, self._announce)

    @property
    def placement(self) -> Placement:
        """The engine and spec that it was built for."""
        return self._placement

    @property
    def network(self) -> Network:
        """The network."""
        return self._network

    def check_adaptation(self) -> None:
        """Refuse adapters: a bundle has weights made for its graphs, not the checkpoint's."""
        raise AdapterError(
            f"{self.name} is of the bundle {self._weights.folder}, which holds weights that are "
            "made for its graphs, and adapters change those of the checkpoint",
            fix="give the checkpoint that the bundle was made of",
        )

    def adapt(self, adaptation: Adaptation | None) -> None:
        """Refuse adapters."""
        self.check_adaptation()

    def check_weights(self) -> None:
        """Do nothing: they were compared with the network where the bundle was made."""

    def describe_placement(self) -> str:
        """Describe the placement."""
        return f"{self._placement.engine.name} {self._placement.spec!r}"

    def identify(self, signature: Signature) -> str:
        """Refuse: a bundle keeps no embeddings on disk, which this would identify."""
        raise CacheError(f"{self.name} is of a bundle, which keeps no embeddings")

    def plan(
        self, signature: Signature, sizes: Mapping[str, int] = MappingProxyType({})
    ) -> NoReturn:
        """Refuse: it is built."""
        raise ConfigError(
            f"{self._weights.folder} is a bundle, which is built and measured where it is made",
            fix="give the checkpoint that it was made of",
        )

    def find_plan(self) -> None:
        """Return ``None``: it was not tuned here."""

    def tune(self, signature: Signature, **options: Any) -> NoReturn:
        """Refuse: it is built."""
        self.plan(signature)

    def _require_engine(self) -> None:
        engine, spec = self._placement.engine, self._placement.spec
        try:
            engine.require_run(spec)
        except EngineUnavailableError as error:
            # Imported late: running a build needs no module that makes one.
            fix = error.fix.replace("fastdeploy-diffusion[", "fastdeploy-diffusion[run-")
            raise EngineUnavailableError(
                f"{self._weights.folder} was made for {engine.name}: {error.problem}",
                fix=fix or "make another bundle: fastdeploy-diffusion bundle --engine …",
            ) from error

    def _require_products(self) -> None:
        """Refuse weights whose products this CPU would add up wrongly, without an error."""
        built, most = self._built, self._placement.spec.weight_bits
        # Bundles that do not say it were made with eight bits everywhere.
        if built.precision == INT8 and (built.weight_bits or 8) > most:
            raise EngineUnavailableError(
                f"{self._weights.folder} holds the {self.name} in int8 with weights of 8 bits; "
                "without VNNI, this CPU would add their products up wrongly",
                allowed=f"a CPU with {', '.join(INT8_FLAGS[:-1])} or {INT8_FLAGS[-1]}; on others, "
                f"weights of {most} bits",
                fix="make the bundle again with int8_portable: true, which runs everywhere",
            )

    def _make(self, signature: Signature) -> RecoveringSession:
        started = time.perf_counter()
        build = self._find(signature)
        session = self._load(build, signature)
        report = replace(
            self.report,
            relative_error=build.relative_error,
            tolerance=build.tolerance,
            rounding_error=build.rounding_error,
            build_seconds=time.perf_counter() - started,
            passes=build.passes,
            changes_picture=build.changes_picture,
            cached=True,
        )
        running = Running(session, self._placement, report)
        return RecoveringSession(
            Program(self.name, None, *signature), running, lambda error, failed: None
        )

    def _find(self, signature: Signature) -> BundledBuild:
        for build in self._built.builds:
            if build.signature == signature:
                return build
        asked = ", ".join(f"{each.name} {each}" for each in signature.inputs)
        sizes = ", ".join(f"{width}x{height}" for width, height in self._weights.bundle.sizes)
        raise RequestError(
            f"the bundle has no {self.name} for {asked}",
            allowed=f"{sizes} pixels, with as many tokens as when it was made",
            fix="make a bundle for it: fastdeploy-diffusion bundle --size …",
        )

    def _load(self, build: BundledBuild, signature: Signature) -> Session:
        folder, bundle = self._weights.folder, self._weights.bundle
        names = [build.folder, *filter(None, [self._built.weights])]
        check_files(folder, bundle, names, self._checked)
        program = Program(self.name, None, *signature, tensors=self._weights)
        programs = find_programs(program, folder / build.folder)
        return start_programs(self._placement.engine, self._placement.spec, program, programs)
