"""The contract of an engine: probe, build once, load often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.disk_room import explain_full_disk
from fastdeploy_diffusion.errors import (
    ConfigError,
    DiffusionError,
    EngineError,
    EngineUnavailableError,
)
from fastdeploy_diffusion.machine import (
    count_usable_cores,
    multiplies_bf16_slowly,
    read_cpu_flags,
    sums_saturate,
)
from fastdeploy_diffusion.native.library import explain_missing_compiler
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.runtime.program import Program

if TYPE_CHECKING:
    from fastdeploy_diffusion.runtime.session import Session


@dataclass(frozen=True)
class BuildSpec:
    """The target of a build: device, precision, threads and options.

    Args:
        precision: Of `PRECISIONS`, by name; inputs and outputs keep their specs' types.
        threads: CPU threads of one run; ``None`` for every core that the process may use.
        target: The GPU architecture to build for, ``"sm86"``, where that need not be a GPU of this
            machine; ``None`` for the device itself.
        options: The engine's options by name, as JSON values; its own defaults where left out.
        notes: Folder for what makes later builds and starts faster (kernels, timings), and has no
            effect on the result of a build; ``None`` keeps nothing.
        portable_int8: Whether weights in int8 are right on every CPU, not on this one alone.

    Raises:
        ConfigError: ``threads`` is less than 1.
    """

    device: Device
    precision: str = "fp32"
    threads: int | None = None
    target: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Path | None = None
    portable_int8: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}", allowed="1 or more, or nothing")

    @property
    def cpu_threads(self) -> int:
        """The number of CPU threads, with the default filled in."""
        return self.threads or count_usable_cores()

    @property
    def weight_bits(self) -> int:
        """The bits of each weight that is quantized: 7 where products of 8 would be wrong."""
        is_multiplied = self.precision == INT8 and self.device.kind == "cpu"
        return 7 if is_multiplied and (self.portable_int8 or sums_saturate()) else 8

    def __str__(self) -> str:
        built_for = f" for {self.target}" if self.target else ""
        return f"{self.device} in {self.precision}{built_for}"


@dataclass(frozen=True)
class Availability:
    """Whether something is available on this machine; if not, why, and what installs it."""

    ok: bool
    reason: str = ""
    install: str = ""

    def require(self) -> None:
        """Raise an `EngineUnavailableError` with the reason, if it is not available."""
        if not self.ok:
            raise EngineUnavailableError(self.reason, fix=self.install)


@dataclass(frozen=True)
class Support:
    """Whether an engine supports a spec; if not, why.

    Args:
        slower: Why it is slower than float32 here, as a clause; empty if it is not.
    """

    ok: bool
    reason: str = ""
    slower: str = ""


@dataclass(frozen=True)
class PayingPasses:
    """The passes that pay on an engine in a precision.

    Args:
        role: Of the networks on which they pay: ``text_encoder``, ``denoiser`` or ``vae``; empty
            for all others.
        pixels: Height times width of the latents from which on they pay; 0 for all sizes, and for
            networks without a size. In int8 it is 0, for layers are chosen at one size for all.
        instructions: A set of instructions that the CPU must have, as Linux names it
            (``"amx_bf16"``); empty for every machine.
        where_slow: Whether they pay only where the CPU multiplies bf16 more slowly than float32.
        close: Passes that pay on some models or machines only: ``tune`` tries them with the others.
    """

    precision: str
    names: tuple[str, ...]
    role: str = ""
    pixels: int = 0
    instructions: str = ""
    where_slow: bool = False
    close: tuple[str, ...] = ()

    def fit(self, precision: str, role: str, pixels: int) -> bool:
        """Tell whether they pay on a network, in a precision, on this machine."""
        return (
            self.precision == precision
            and self.role in ("", role)
            and self.pixels <= pixels
            and (not self.instructions or self.instructions in read_cpu_flags())
            and (not self.where_slow or multiplies_bf16_slowly())
        )


class Engine(ABC):
    """A way to run programs. Making one imports no runtime and never fails."""

    name: ClassVar[str]
    # By the kinds of devices that it runs on and builds for: what it computes in there.
    precisions: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        dict.fromkeys(("cpu", "gpu", "xpu"), ("fp32",))
    )
    # The module whose ``build(engine, program, spec, out)`` fills an artifact: imported for that,
    # so that running needs no building code. ``None`` where the engine itself builds.
    builder: ClassVar[str | None] = None
    # Whether weights come from the program, so that its layer may be one without values.
    binds_weights: ClassVar[bool] = False
    # Whether weights may also be inputs, in half precision too, of a program that many share.
    takes_weights: ClassVar[bool] = False
    # Whether its artifact is the exported graph, to which outputs can be added that show what
    # layers read.
    can_be_observed: ClassVar[bool] = False
    # The operators of the ONNX graphs that it reads; ``None`` if it reads none.
    dialect: ClassVar[Dialect | None] = None
    # The adapter, in ``native/``, by which it runs operators that are compiled for it.
    native_adapter: ClassVar[str | None] = None
    # The packages of which those need the very version that they were compiled for.
    native_runtimes: ClassVar[tuple[str, ...]] = ()
    # Whether a build is worth keeping for other processes.
    keeps_builds: ClassVar[bool] = True
    # Whether a row of a batch is the same, bit for bit, beside any number of any other rows.
    keeps_rows_apart: ClassVar[bool] = False
    # The share of the counted numbers that it holds at its peak on a CPU, as measured: of feature
    # maps, and of the largest attention matrix; 0 where that is never held as a whole.
    held_features: ClassVar[float] = 0.0
    held_scores: ClassVar[float] = 0.0
    # The passes that were measured to pay (docs/passes.md); the first that fit.
    paying_passes: ClassVar[tuple[PayingPasses, ...]] = ()
    # What an artifact depends on beside network and signature: the "weights" in it, "precision",
    # "options", and the "device", or only its "kind". All else is chosen when it is loaded.
    artifact_depends_on: ClassVar[frozenset[str]] = frozenset(
        {"weights", "device", "precision", "options"}
    )
    # The packages whose versions an artifact depends on, and those that only its numbers do.
    packages: ClassVar[tuple[str, ...]] = ()
    runtimes: ClassVar[tuple[str, ...]] = ()

    def probe_run(self, device: Device) -> Availability:
        """Tell whether the runtime and the device are there; never raises."""
        return self._probe(device, self._probe_run)

    def probe_build(self, device: Device) -> Availability:
        """Tell whether the packages that build for a device are there; never raises."""
        return self._probe(device, self._probe_build)

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of devices that it runs on and builds for."""
        return tuple(self.precisions)

    def supports(self, spec: BuildSpec) -> Support:
        """Tell whether the engine supports a spec, on a machine that has what it needs."""
        device, precision = spec.device.kind, spec.precision
        if precision in self.precisions[device]:
            return Support(True)
        runs = ", ".join(self.precisions[device])
        return Support(False, f"{self.name} runs {runs} on {device}, not {precision}")

    def refuse_native(self, spec: BuildSpec) -> str:
        """Return why it runs no operators that are compiled for it in a spec; empty if it does."""
        if self.native_adapter is None:
            return f"{self.name} runs no operators of this library's"
        if spec.device.kind != "cpu":
            return f"this library's operators run on CPUs, not on {spec.device}"
        return explain_missing_compiler()

    def name_default_passes(
        self, precision: str, role: str = "", pixels: int = 0, *, close: bool = False
    ) -> tuple[str, ...]:
        """Name the passes that pay on this machine; with ``close``, those that may pay, too.

        Args:
            role: Of the network; empty for one of no pipeline.
            pixels: Height times width of its latents; 0 where they are open, or there are none.
        """
        for each in self.paying_passes:
            if each.fit(precision, role, pixels):
                return (*each.names, *each.close) if close else each.names
        return ()

    def require_run(self, spec: BuildSpec) -> None:
        """Refuse a spec for which a finished build would not run, here or at all.

        Raises:
            EngineUnavailableError: The message says why, and what installs the missing part.
        """
        self.probe_run(spec.device).require()
        support = self.supports(spec)
        if not support.ok:
            raise EngineUnavailableError(support.reason)

    def require_build(self, spec: BuildSpec) -> None:
        """Refuse a spec that the engine cannot build for here.

        Without a target it is built for this machine, so that it has to run here, too.

        Raises:
            EngineUnavailableError: The message says why, and what installs the missing part.
        """
        if spec.target is not None:
            raise EngineUnavailableError(
                f"{self.name} builds for the machine that it runs on, not for {spec.target}",
                allowed="a target for engine='tensorrt' on device='gpu'",
            )
        self.require_run(spec)
        self.probe_build(spec.device).require()

    def build(self, program: Program, spec: BuildSpec, out: Path) -> None:
        """Compile a program: slow, done once.

        Args:
            out: Folder of the artifact; made if missing.

        Raises:
            EngineUnavailableError: The engine cannot do this here; the message says why.
            EngineError: The build failed.
            DiskFullError: It does not fit into the folder.
        """
        self.require_build(spec)
        with self._explain(f"build {program.name}"), explain_full_disk(program.name, out):
            out.mkdir(parents=True, exist_ok=True)
            self._build(program, spec, out)

    def load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session:
        """Make a built program ready to run.

        Args:
            program: Its name and signature (and, for the eager engine, its layer).
            artifact: Folder that ``build`` filled.

        Returns:
            A session; close it to give its memory back.

        Raises:
            EngineUnavailableError: The engine cannot do this here; the message says why.
            EngineError: The artifact is damaged, or another program's.
        """
        self.require_run(spec)
        with self._explain(f"load {program.name}"):
            return self._load(program, spec, artifact)

    @abstractmethod
    def _probe_run(self, device: Device) -> Availability:
        """Probe the runtime for one of ``devices``, as `probe_run`."""

    def _probe_build(self, device: Device) -> Availability:
        """Probe the builder for one of ``devices``; by default what runs builds, too."""
        return self._probe_run(device)

    def _build(self, program: Program, spec: BuildSpec, out: Path) -> None:
        assert self.builder is not None
        import_module(self.builder).build(self, program, spec, out)

    @abstractmethod
    def _load(self, program: Program, spec: BuildSpec, artifact: Path) -> Session: ...

    def _probe(self, device: Device, probe: Callable[[Device], Availability]) -> Availability:
        if device.kind not in self.devices:
            runs = f"{self.name} runs on {' and '.join(self.devices)}"
            return Availability(False, f"{runs}, not on {device.kind}")
        return probe(device)

    @contextmanager
    def _explain(self, task: str) -> Iterator[None]:
        # Runtimes raise what they like; callers see one type, and the component's name.
        try:
            yield
        except DiffusionError:
            raise
        except Exception as error:
            raise EngineError(
                f"{self.name} could not {task}: {type(error).__name__}: {error}"
            ) from error
