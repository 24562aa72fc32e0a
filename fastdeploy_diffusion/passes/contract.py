"""The contract of all passes: a name, an origin, a promise, and a result."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from typing_extensions import Self

from fastdeploy_diffusion.errors import PassError
from fastdeploy_diffusion.families.networks.census import Census, Convolution, Site
from fastdeploy_diffusion.lazy import load
from fastdeploy_diffusion.runtime.pass_result import PassResult

if TYPE_CHECKING:
    import paddle


@dataclass(frozen=True)
class PassOrigin:
    """The distribution of a pass from outside.

    Args:
        code: The sha256 of its code, as hexadecimal digits.
    """

    distribution: str
    version: str
    code: str


class Pass(ABC):
    """A rewrite of a network: of its layers, or of the graph that they are exported as.

    It is made without arguments.
    """

    name: ClassVar[str]
    # The kinds of places that it rewrites; ``None`` where nothing is promised.
    sites: ClassVar[tuple[Site, ...] | None]
    # Whether it can do nothing where heights and widths are left open.
    needs_known_sizes: ClassVar[bool] = False
    # Whether what it makes is compiled when a graph is built: see `native.library`.
    is_native: ClassVar[bool] = False
    # Whether pictures differ with it on purpose. Then it is in no engine's default set, runs before
    # all others, and builds are compared with the layer as it leaves it.
    changes_picture: ClassVar[bool] = False
    # This library's own passes have none.
    origin: PassOrigin | None = None

    def __str__(self) -> str:
        if self.origin is None:
            return self.name
        return f"{self.name} of {self.origin.distribution} {self.origin.version}"

    @property
    def module(self) -> str:
        """The name of the module that defines it."""
        return type(self).__module__

    def load(self) -> Self:
        """Return the pass itself; see `NamedPass.load`."""
        return self

    def identify(self) -> str | dict[str, str]:
        """Identify the pass, as JSON, for the keys of builds.

        The code of this library's own passes is in every key already.
        """
        return self.name if self.origin is None else {"name": self.name, **asdict(self.origin)}

    def expects(self, site: Site | Convolution) -> bool:
        """Tell whether it rewrites all places of a kind."""
        return site in (self.sites or ())

    def expect(self, network: paddle.nn.Layer) -> int | None:
        """Count the places to rewrite from a network's config, not from its layers.

        Returns:
            How many places; ``None`` where nothing is promised, or the network has no census.
        """
        census: Census | None = getattr(network, "census", None)
        if census is None or self.sites is None:
            return None
        return sum(count for site, count in census.items() if self.expects(site))


@dataclass(frozen=True)
class NamedPass:
    """A pass of this library before its import, which imports Paddle.

    It has the attributes that choosing passes and making keys of builds read.

    Args:
        path: The class of the pass: ``"package.module:Name"``.
    """

    name: str
    path: str
    needs_known_sizes: bool
    is_native: bool = False
    changes_picture: bool = False

    @property
    def module(self) -> str:
        """The name of the module that defines it."""
        return self.path.partition(":")[0]

    def identify(self) -> str:
        """Identify the pass for the keys of builds."""
        return self.name

    def load(self) -> Pass:
        """Import the class, and make the pass."""
        made: Pass = load(self.path)()
        return made


AnyPass: TypeAlias = Pass | NamedPass


def keep_changing(passes: Sequence[AnyPass]) -> tuple[AnyPass, ...]:
    """Drop the passes that leave the picture as it is."""
    return tuple(each for each in passes if each.changes_picture)


def name_changes(passes: Sequence[AnyPass], counts: Mapping[str, int]) -> tuple[str, ...]:
    """Name the passes that have changed the picture, by how often each rewrote the network."""
    return tuple(each.name for each in keep_changing(passes) if counts.get(each.name))


def require_promise(each: Pass, result: PassResult, network: str) -> None:
    """Refuse a result that is not what the model's config promises.

    Raises:
        PassError: It rewrote another number of places.
    """
    if result.is_as_promised:
        return
    reasons = "; ".join(f"{path}: {why}" for path, why in result.skipped.items())
    raise PassError(
        f"the pass {each} rewrote {result.count} places of {network}"
        f"{f' ({reasons})' if reasons else ''}",
        allowed=f"{result.expected}, which the model's config promises",
        fix="leave the pass out, and report this",
    )
