"""The ControlNets of a pipeline: their parts of a plan, and what they bring to a step."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from fastdeploy_diffusion.predictors.component import Part, Parts
from fastdeploy_diffusion.predictors.controlled_session import SCALES, ControlledSession
from fastdeploy_diffusion.predictors.controlnet import ControlNet
from fastdeploy_diffusion.predictors.residency import Residency
from fastdeploy_diffusion.requests.control import Control
from fastdeploy_diffusion.runtime.session import Session
from fastdeploy_diffusion.size_range import Size, SizeRange


class Controls:
    """All ControlNets of a configuration, which run together.

    Requests with the same sessions share a `ControlledSession`, so that their rows run at once.
    """

    def __init__(self, controlnets: Sequence[ControlNet]) -> None:
        self.controlnets = tuple(controlnets)
        self._joined: WeakValueDictionary[tuple[Session, ...], ControlledSession] = (
            WeakValueDictionary()
        )

    def list_parts(
        self, height: Size, width: Size, tokens: Size, batch: Size, sizes: Mapping[str, int]
    ) -> tuple[Part, ...]:
        """List the parts for latents of a size, texts of a length, and a number of rows.

        Args:
            sizes: As of a `Part`.
        """
        if isinstance(batch, SizeRange):
            batch = replace(batch, min=1)  # it runs where it has a say, on those rows alone
        return tuple(
            Part(each.component, each.signature(height, width, tokens, batch), sizes)
            for each in self.controlnets
        )

    @contextmanager
    def lend(self, parts: Parts, residency: Residency) -> Generator[Session, None, None]:
        """Lend the denoiser with its ControlNets as one session; raises as ``residency.lend``."""
        with ExitStack() as stack:
            lent = [
                stack.enter_context(residency.lend(part))
                for part in (parts.denoiser, *parts.controlnets)
            ]
            denoiser, *controlnets = lent
            session = self._joined.get(tuple(lent))
            if session is None:
                session = ControlledSession(denoiser, controlnets)
                self._joined[tuple(lent)] = session
            yield session

    def bring_residuals(
        self, control: Control, step: int, steps: int, *, negative: bool
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Make what each row brings to a step: how much of each ControlNet is added where."""
        residuals = len(self.controlnets[0].config.skips) + 1
        pooled = [each.config.global_pool_conditions for each in self.controlnets]
        scales = control.scale_residuals(step, steps, residuals, pooled, negative=negative)
        return {SCALES: scales}

    def describe(self, control: Control) -> list[dict[str, Any]]:
        """Describe the control of a picture for its metadata."""
        names = [each.checkpoint.name for each in self.controlnets]
        digests = [each.digest for each in self.controlnets]
        return [
            {**each, "model_digest": digest}
            for each, digest in zip(control.describe(names), digests, strict=True)
        ]
