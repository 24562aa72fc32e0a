"""The contract of a graph pass: a rewrite of the ONNX graph that a layer is exported as.

The graph has no weights: they are inputs, so that nothing may depend on their values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.onnx_dialect import Dialect
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.contract import Pass
from fastdeploy_diffusion.runtime.pass_result import PassResult


class GraphRule(ABC):
    """A pattern and its replacement, in the manner of onnxscript's rewriter.

    ``pattern`` and ``rewrite`` get a builder of nodes and return values; the parameters of
    ``pattern`` after it are the matched values, and are passed to the others by their names.
    """

    # The first version of the standard that has all operators that ``rewrite`` makes.
    opset: int = 17
    # Whether factors and summands of the pattern may come in any order.
    commutes: ClassVar[bool] = False

    @abstractmethod
    def pattern(self, *args: Any, **kwargs: Any) -> Any:
        """Build the pattern: ``pattern(self, op, x, …)``."""

    def match(self, *args: Any, **kwargs: Any) -> bool:
        """Tell whether a place with the pattern is to be rewritten: ``match(self, place, x, …)``.

        ``place`` has its nodes and its outputs (onnxscript's ``MatchContext``).
        """
        return True

    def check(self, *args: Any, **kwargs: Any) -> str:
        """Return why a matching place cannot be rewritten, if so; called as ``match``."""
        return ""

    @abstractmethod
    def rewrite(self, *args: Any, **kwargs: Any) -> Any:
        """Build the replacement: ``rewrite(self, op, x, …)``."""


class GraphPass(Pass):
    """A rewrite of exported graphs, for engines that read ONNX."""

    @abstractmethod
    def make_rules(self, dialect: Dialect) -> Sequence[GraphRule]:
        """Make the rules for an engine that reads a dialect."""

    def refuse(self, dialect: Dialect) -> str:
        """Return why a dialect has no operator to rewrite to, if so.

        With a reason, every place that the rules find is skipped, and none is expected.
        """
        return ""

    def apply(self, model: Any, dialect: Dialect) -> PassResult:
        """Rewrite a graph in place.

        Args:
            model: An ``onnx_ir.Model`` whose weights are inputs.

        Returns:
            The counts; what is expected, only the whole network's config knows.
        """
        from onnxscript.rewriter import RewriteRule, RewriteRuleSet

        refusal = self.refuse(dialect)
        skipped: dict[str, str] = {}
        count = 0
        for rule in self.make_rules(dialect):
            judge = _make_judge(rule, refusal, skipped)
            found = RewriteRuleSet(
                [RewriteRule(rule.pattern, rule.rewrite, judge)], commute=rule.commutes
            ).apply_to_model(model)
            if found:
                model.opset_imports[""] = max(model.opset_imports[""], rule.opset)
            count += found
        return PassResult(self.name, count, None, skipped)


def apply_graph_passes(
    passes: Sequence[GraphPass], model: Any, dialect: Dialect
) -> list[PassResult]:
    """Apply passes one after the other; arguments as for `GraphPass.apply`.

    Raises:
        PassError: A pass failed.
        Exception: Memory ran out; as the runtime raises it, for no pass is to blame.
    """
    results = []
    for each in passes:
        try:
            results.append(each.apply(model, dialect))
        except Exception as error:
            if tells_of_memory(error):
                raise  # not the pass's doing
            raise PassError(
                f"the pass {each} failed on an ONNX graph: {type(error).__name__}: {error}",
                fix="leave the pass out, and report this",
            ) from error
    return results


def _make_judge(rule: GraphRule, refusal: str, skipped: dict[str, str]) -> Any:
    """Make the condition that onnxscript evaluates before a rewrite; skipped places are noted."""

    def judge(place: Any, **found: Any) -> bool:
        if not rule.match(place, **found):
            return False
        name = place.output_values[0].name
        if reason := refusal or rule.check(place, **found):
            skipped[name] = reason
        return not reason

    return judge
