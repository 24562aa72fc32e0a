"""Fallbacks from half precisions that failed, which are remembered."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from fastdeploy_diffusion.engines.placement import Placement, take_safer_precision
from fastdeploy_diffusion.engines.plan import ComponentPlan, UnsafePrecision, remember_failures
from fastdeploy_diffusion.errors import AccuracyError, CacheError, NonFiniteError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.cache import ArtifactCache, CacheWarning
from fastdeploy_diffusion.runtime.cache_entry import CacheKey

# Errors that half precision may cause.
PRECISION_ERRORS = (AccuracyError, NonFiniteError)


@dataclass(frozen=True)
class PrecisionGuard:
    """Keeps a component out of precisions in which it gave NaN, infinity or wrong numbers.

    Args:
        pinned_by: The option by which the user has set the precision, so that there is no
            fallback; ``None`` if none has.
        cache: ``None`` to keep no decisions.
    """

    component: str
    model: str
    pinned_by: str | None
    cache: ArtifactCache | None
    make_key: Callable[[ArtifactCache], CacheKey]

    def is_needed(self, placement: Placement) -> bool:
        """Tell whether there is a safer precision than the one of a placement."""
        return bool(PRECISIONS[placement.spec.precision].safer)

    def avoid(self, placement: Placement, plan: ComponentPlan | None) -> Placement:
        """Choose the first precision that has not failed before, according to the plan.

        A `FallbackWarning` is issued if that is another.
        """
        while plan is not None and self.pinned_by is None:
            engine, precision = placement.engine.name, placement.spec.precision
            reason = plan.find_unsafe(engine, precision)
            safer = take_safer_precision(placement, f"earlier: {reason}") if reason else None
            if safer is None:
                break
            placement = safer
        return placement

    def retreat(
        self, placement: Placement, error: Exception, *, remembers: bool = True
    ) -> Placement | None:
        """Fall back to the same engine in the next safer precision, and record why.

        A `FallbackWarning` is issued.

        Args:
            remembers: Whether other starts avoid the precision from now on.

        Returns:
            The fallback; ``None`` if precision is not to blame, or none is safer.

        Raises:
            AccuracyError: The precision is pinned, and its numbers are too far off.
            NonFiniteError: The precision is pinned, and its outputs are not all numbers.
        """
        if not isinstance(error, PRECISION_ERRORS) or not self.is_needed(placement):
            return None
        if self.pinned_by is not None:
            raise self._explain(placement, error) from error
        safer = take_safer_precision(placement, error.problem)
        if safer is not None and remembers:
            self._remember(placement, error.problem)
        return safer

    def _explain(
        self, placement: Placement, error: AccuracyError | NonFiniteError
    ) -> AccuracyError | NonFiniteError:
        precision = placement.spec.precision
        problem = f"{error.problem}; {self.pinned_by} asks for just {precision}"
        safer = " or ".join(PRECISIONS[precision].safer)
        allowed = "a precision that its numbers fit into"
        fix = (
            f"set {self.pinned_by} to {safer}; or leave it out, and set the pipeline's precision "
            f"to {precision}, which takes a safer one where it must"
        )
        if isinstance(error, AccuracyError):
            return AccuracyError(
                problem,
                relative_error=error.relative_error,
                rounding_error=error.rounding_error,
                allowed=error.allowed,
                fix=fix,
            )
        return NonFiniteError(problem, allowed=allowed, fix=fix)

    def _remember(self, placement: Placement, reason: str) -> None:
        if self.cache is None:
            return
        unsafe = UnsafePrecision(placement.engine.name, placement.spec.precision, reason)
        try:
            key = self.make_key(self.cache)
            remember_failures(self.cache, key, self.component, unsafe=[unsafe], model=self.model)
        except CacheError as error:
            message = (
                f"{self.component}: could not record that {unsafe.precision} is unsafe: "
                f"{error.in_one_line}"
            )
            warnings.warn(message, CacheWarning, stacklevel=2)
