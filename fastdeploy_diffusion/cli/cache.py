"""``cache``: lists, checks and removes kept builds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdeploy_diffusion.cli.errors import explain_errors
from fastdeploy_diffusion.cli.group import CommandGroup
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.table import LINE, align_within, format_age, format_bytes
from fastdeploy_diffusion.size_range import parse_range

if TYPE_CHECKING:
    from fastdeploy_diffusion.runtime.array_files import ArrayFiles
    from fastdeploy_diffusion.runtime.cache import ArtifactCache
    from fastdeploy_diffusion.runtime.cache_entry import CacheEntry

cache_app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, check and remove the builds that are kept for the next start.",
)

Folder = Annotated[
    str | None,
    typer.Option("--dir", metavar="FOLDER", help="The cache's folder, if not the usual one."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]

_SHOWN_DIGITS = 8
_GIB = 2**30
# Kinds of arrays that are kept beside the builds, each in the folder of its plural.
_ARRAYS = {"embedding": "text", "reference": "run"}
_PICTURE, _TOKENS, _TEXT = 4, 3, 2  # dimensions, the batch among them


@cache_app.command()
def path(folder: Folder = None, debug: Debug = False) -> None:
    """Print the cache's folder."""
    with explain_errors(debug):
        print(_open(folder).root)


@cache_app.command()
def ls(folder: Folder = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the builds, the one used last first."""
    with explain_errors(debug):
        cache = _open(folder)
        entries = cache.entries()
        if as_json:
            print(to_json([_describe(cache, entry) for entry in entries]))
        else:
            print("\n".join([*_list_builds(cache, entries), _sum_up(cache, entries)]))
            for kind, what in _ARRAYS.items():
                count, size = _open_arrays(folder, kind).measure()
                if count:
                    plural = "" if count == 1 else "s"
                    print(f"{kind}s of {count} {what}{plural}, {size / 2**20:.1f} MiB")


@cache_app.command()
def verify(folder: Folder = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Compare every file with its checksum; exit code 1 if one is damaged."""
    with explain_errors(debug):
        cache = _open(folder)
        entries = cache.entries()
        damages = [cache.find_damage(entry) for entry in entries]
        others = {
            "weight": cache.find_damaged_weights(),
            **{kind: _open_arrays(folder, kind).find_damage() for kind in _ARRAYS},
        }
        rest = [(kind, *found) for kind, each in others.items() for found in each.items()]
        if as_json:
            rows = zip(entries, damages, strict=True)
            builds = [{**_describe(cache, entry), "damage": each} for entry, each in rows]
            print(to_json([*builds, *({kind: name, "damage": each} for kind, name, each in rest)]))
        else:
            print("\n".join([*_list_damages(entries, damages), _sum_up(cache, entries)]))
            for kind, name, damage in rest:
                print(f"{kind} {name}: {damage}")
    if any(damages) or rest:
        raise typer.Exit(1)


@cache_app.command()
def rm(
    digests: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DIGEST]...", help="As `ls` shows them, or the first digits."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Remove builds; the next start makes them again.

    With --all also the notes beside them: digests, kernels and their times, embeddings, references.
    """
    from fastdeploy_diffusion.errors import CacheError

    with explain_errors(debug):
        cache = _open(folder)
        entries = cache.entries()
        chosen = entries if everything else _choose(entries, digests or [])
        removed = [cache.remove(entry.digest) for entry in chosen]
        if everything:
            cache.remove_notes()
        print(f"removed {_count(sum(removed))}")
        if left := removed.count(False):
            stay, them = ("stays", "it") if left == 1 else ("stay", "them")
            raise CacheError(
                f"{_count(left)} {stay}: another process builds or loads {them} now",
                fix="try again when it is done",
            )


@cache_app.command()
def gc(
    limit_gib: Annotated[float, typer.Option(min=0, max=1e6, help="GiB that may remain.")] = 20.0,
    folder: Folder = None,
    debug: Debug = False,
) -> None:
    """Remove the least recently used builds, until the rest is within the limit."""
    with explain_errors(debug):
        print(f"removed {_count(len(_open(folder, limit_gib).collect()))}")


def _open(folder: str | None, limit_gib: float = 0.0) -> ArtifactCache:
    from fastdeploy_diffusion.runtime.cache import ArtifactCache, default_cache_folder

    root = Path(folder).expanduser() if folder else default_cache_folder()
    return ArtifactCache(root, int(limit_gib * _GIB))


def _open_arrays(folder: str | None, kind: str) -> ArrayFiles:
    from fastdeploy_diffusion.runtime.array_files import ArrayFiles

    return ArrayFiles(_open(folder).root / f"{kind}s")


def _choose(entries: list[CacheEntry], digests: list[str]) -> list[CacheEntry]:
    from fastdeploy_diffusion.errors import BadInputError

    if not digests:
        raise BadInputError("no build to remove is named", fix="name digests, or give --all")
    chosen = []
    for digest in digests:
        found = [entry for entry in entries if entry.digest.startswith(digest)]
        if len(found) != 1:
            raise BadInputError(
                f"{len(found) or 'no'} builds begin with {digest!r}",
                allowed=", ".join(entry.digest[:_SHOWN_DIGITS] for entry in entries),
                fix="fastdeploy-diffusion cache ls",
            )
        chosen += found
    return chosen


def _describe(cache: ArtifactCache, entry: CacheEntry) -> dict[str, object]:
    ingredients = entry.ingredients
    proofs = [
        {"precision": each.key.ingredients["precision"], **asdict(each.accuracy)}
        for each in entry.list_proofs()
    ]
    return {
        "digest": entry.digest,
        "model": entry.model,
        "component": ingredients["component"],
        "engine": ingredients["engine"],
        "precision": _name_precision(entry),
        "size": describe_size(ingredients["signature"]),
        "inputs": ingredients["signature"]["inputs"],
        "packages": ingredients["packages"],
        "bytes": entry.size,
        "weight_bytes": sum(cache.measure_weights(entry).values()),
        "used": entry.used,
        "relative_error": max((each["relative_error"] for each in proofs), default=None),
        "proofs": proofs,
    }


def _list_builds(cache: ArtifactCache, entries: list[CacheEntry]) -> list[str]:
    now = time.time()
    heads = ["build", "model", "component", "engine", "precision", "size", "bytes", "used"]
    rows = [
        [
            *_name(entry),
            describe_size(entry.ingredients["signature"]),
            format_bytes(entry.size + sum(cache.measure_weights(entry).values())),
            format_age(now - entry.used),
        ]
        for entry in entries
    ]
    return [*align_within(LINE, [heads, *rows], shortened=1)] if rows else []


def _list_damages(entries: list[CacheEntry], damages: list[str]) -> list[str]:
    heads = ["build", "model", "component", "engine", "precision", ""]
    pairs = zip(entries, damages, strict=True)
    rows = [[*_name(entry), damage or "whole"] for entry, damage in pairs]
    return [*align_within(LINE, [heads, *rows], shortened=1)] if rows else []


def _name(entry: CacheEntry) -> list[str]:
    """Describe a build in five cells."""
    told = (str(entry.ingredients[name]) for name in ("component", "engine"))
    return [entry.digest[:_SHOWN_DIGITS], entry.model, *told, _name_precision(entry)]


def _name_precision(entry: CacheEntry) -> str:
    """Name the precisions that it is built or proven in: one graph may serve several."""
    if "precision" in entry.ingredients:
        return str(entry.ingredients["precision"])
    return ", ".join(sorted({each.key.ingredients["precision"] for each in entry.list_proofs()}))


def _sum_up(cache: ArtifactCache, entries: list[CacheEntry]) -> str:
    """Sum up bytes; what several builds share counts once."""
    size = cache.measure(entries) + sum(cache.measure_weights().values())
    return f"{_count(len(entries))}, {format_bytes(size)}"


def _count(number: int) -> str:
    return f"{number} build{'' if number == 1 else 's'}"


def describe_size(signature: Mapping[str, Any]) -> str:
    """Describe the size of a build's signature: pixels, latents or tokens.

    Args:
        signature: Descriptions of ``inputs`` and ``outputs``, as they are in the key of a build.

    Returns:
        ``512x512 px`` (width and height) where pictures come out, else what goes in:
            ``64x64 latents``, ``77 tokens``; nothing where there is no signature.
    """
    for name, sizes, _ in signature["outputs"]:
        if name == "images":
            return f"{_describe_area(sizes)} px"
    for _, sizes, _ in signature["inputs"]:
        if len(sizes) == _PICTURE:
            return f"{_describe_area(sizes)} latents"
        if len(sizes) in (_TOKENS, _TEXT):
            return f"{_describe_one(sizes[1])} tokens"
    return ""


def _describe_area(sizes: list[Any]) -> str:
    height, width = map(_describe_one, sizes[2:])
    return f"{width}x{height}"


def _describe_one(size: Any) -> str:
    """Describe a size: a number, or a range as `SizeRange` describes itself."""
    if isinstance(size, list):
        found = parse_range(size)
        return f"{found.min}-{found.max}"
    return "any" if size is None else str(size)
