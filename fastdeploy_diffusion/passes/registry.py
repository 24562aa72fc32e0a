"""The passes by name."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.pass_entry_points import find_pass_entry_points
from fastdeploy_diffusion.passes.contract import AnyPass, NamedPass, Pass
from fastdeploy_diffusion.passes.user_passes import (
    load_all_user_passes,
    load_user_pass,
    warn_of_taken_names,
)
from fastdeploy_diffusion.registry import PASSES
from fastdeploy_diffusion.suggest import did_you_mean

# The own passes whose classes set ``needs_known_sizes``, ``is_native`` and ``changes_picture``.
_NEED_KNOWN_SIZES = ("winograd-4x4", "winograd-2x2", "channels-last", "resize-nearest")
_NATIVE = ("native-attention",)
_CHANGE_PICTURE = ("downsample-tokens",)
_OWN: Mapping[str, NamedPass] = MappingProxyType(
    {
        name: NamedPass(
            name, path, name in _NEED_KNOWN_SIZES, name in _NATIVE, name in _CHANGE_PICTURE
        )
        for name, path in PASSES.items()
    }
)


def pass_names() -> tuple[str, ...]:
    """Name the passes that this version has, without those of other distributions."""
    return tuple(PASSES)


def make_all_passes() -> list[Pass]:
    """Make the passes of this version, and those of other distributions that load.

    Each that does not load is a `PassWarning` with the reason.
    """
    return [*(each.load() for each in _OWN.values()), *load_all_user_passes(pass_names())]


def choose_passes(names: Sequence[str]) -> list[Pass]:
    """Make the passes that `find_passes` finds; arguments and errors are the same."""
    return [each.load() for each in find_passes(names)]


def find_passes(names: Sequence[str]) -> list[AnyPass]:
    """List passes in the order in which they are applied; this library's own are not imported.

    Those that change the picture come first. Of the others, and of these, this library's own come
    first, in their own order; then those of other distributions, in the order of ``names``. Layer
    passes are all applied before graph passes, which see what they made.

    Raises:
        ConfigError: There is no pass of a name.
        PassError: A pass of another distribution cannot be used.
    """
    wanted = tuple(dict.fromkeys(names))
    own = [each for name, each in _OWN.items() if name in wanted]
    if not wanted:
        return []
    registered = find_pass_entry_points()
    warn_of_taken_names(tuple(each.name for each in own))
    others = [name for name in wanted if name not in PASSES]
    for name in others:
        if name not in registered:
            known = (*PASSES, *(each for each in registered if each not in PASSES))
            raise ConfigError(
                f"there is no pass {name!r}",
                allowed=", ".join(known),
                fix=did_you_mean(name, known),
            )
    found: list[AnyPass] = [*own, *(load_user_pass(name, registered[name]) for name in others)]
    return sorted(found, key=lambda each: not each.changes_picture)
