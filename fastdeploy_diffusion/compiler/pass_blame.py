"""Finds the passes that are to blame for a failed build."""

from fastdeploy_diffusion.compiler.build import ComponentBuild
from fastdeploy_diffusion.errors import DiffusionError, PassError, ResourceError
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.passes.contract import AnyPass
from fastdeploy_diffusion.precision import PRECISIONS


def find_guilty_passes(build: ComponentBuild, error: Exception) -> dict[str, PassError]:
    """Find the passes without which a build is right.

    Each is tried alone, on the build's engine, if that is right without any. Those that change the
    picture are always applied: they make the original. Where none fails alone, all do together.

    Args:
        error: The failure of the build.

    Returns:
        An error for each, by its name; none if the build fails without passes, or if there was too
        little memory to tell.
    """
    passes = [each for each in build.passes if not each.changes_picture]
    if not passes or _try(build) is not None:
        return {}
    if len(passes) == 1:
        failures = {passes[0]: error}
    else:
        tried = {each: _try(build, each) for each in passes}
        failures = {each: failure for each, failure in tried.items() if failure}
    if any(isinstance(each, ResourceError) or tells_of_memory(each) for each in failures.values()):
        return {}
    if failures:
        return {each.name: _explain(build, [each], failure) for each, failure in failures.items()}
    return dict.fromkeys([each.name for each in passes], _explain(build, passes, error))


def _try(build: ComponentBuild, *passes: AnyPass) -> Exception | None:
    """Build and prove with passes, beside those that change the picture; returns the failure."""
    try:
        build.with_passes((*build.reference.passes, *passes)).open(None).session.close()
    except Exception as failure:  # of any type: the pass has made the difference
        return failure
    return None


def _explain(build: ComponentBuild, passes: list[AnyPass], failure: Exception) -> PassError:
    if isinstance(failure, PassError):
        return failure
    what = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, DiffusionError):
        what = failure.problem
    names = ", ".join(str(each.load()) for each in passes)
    subject = f"pass {names} fails its" if len(passes) == 1 else f"passes {names} fail their"
    criterion = PRECISIONS[build.placement.spec.precision].criterion
    return PassError(
        f"the {subject} check on {build.name}: {what}",
        allowed=f"the layer's own numbers, to {criterion}",
        fix="leave the pass out, and report this",
    )
