"""Writes a bundle: all that a pipeline needs to draw on a machine that cannot build."""

import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from fastdeploy_diffusion import __version__
from fastdeploy_diffusion.checksum import measure_files
from fastdeploy_diffusion.compiler.blended_build import BlendedBuild
from fastdeploy_diffusion.compiler.build import ComponentBuild, KeptBuild
from fastdeploy_diffusion.compiler.tiled_build import TiledBuild
from fastdeploy_diffusion.compiler.tokenizer_folders import list_tokenizer_folders
from fastdeploy_diffusion.config.part_options import drop_parts
from fastdeploy_diffusion.disk_room import explain_full_disk
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.passes.contract import name_changes
from fastdeploy_diffusion.precision import INT8
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor
from fastdeploy_diffusion.runtime.blobs import BlobWriter
from fastdeploy_diffusion.runtime.bundle import (
    BUNDLE_FILE,
    GRAPHS_FOLDER,
    MODEL_FOLDER,
    REFINER_FOLDER,
    SCHEMA,
    WEIGHTS_FOLDER,
    Bundle,
    BundledBuild,
    BundledComponent,
)
from fastdeploy_diffusion.runtime.cache import ArtifactCache
from fastdeploy_diffusion.runtime.manifest import check_manifest, copy_export
from fastdeploy_diffusion.runtime.recipe import Weight, derive
from fastdeploy_diffusion.runtime.stages import write_stages

Size = tuple[int | None, int | None]
# Options of a configuration that are about this machine, and not about pictures.
_OF_THE_MACHINE = {
    *("model_path", "variant", "tokenizer_path", "cache", "cache_dir", "cache_limit_gib"),
    *("embedding_cache", "cpu_fallback", "threads", "memory", "vae_tiling", "tiny_vae_path"),
    *("int8_quality", "int8_portable", "calibration_prompts"),
}


def check_bundle_folder(folder: Path) -> None:
    """Refuse a folder that exists, or whose parent does not, before anything is built.

    Raises:
        ConfigError: Names the folder.
    """
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists already", fix="choose another name, or remove it")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(
            f"there is no folder {folder.absolute().parent}", fix="make it, or choose another"
        )


def write_bundle(
    pipeline: DiffusionPredictor[Any],
    sizes: Sequence[Size],
    folder: str | os.PathLike[str],
    chunks: Sequence[int | None] = (None,),
    shown: Sequence[int | None] = (None,),
    *,
    encoder: bool = False,
) -> Bundle:
    """Build and prove a pipeline for some sizes, and write it into a folder.

    Args:
        pipeline: Its builds are kept, as those of every pipeline.
        sizes: Of pictures, (width, height) in pixels; ``None`` for the model's own.
        folder: Appears whole or not at all.
        chunks: Of texts, for each size; ``None`` for those of plain prompts.
        shown: Pictures for each IP-Adapter, for each of these; ``None`` for one.
        encoder: Whether it has the VAE's encoder, for requests with pictures.

    Returns:
        The content of the bundle.

    Raises:
        ConfigError: The folder exists, or the configuration builds nothing that can be bundled.
        DiffusionError: A component cannot be built.
        DiskFullError: There is no room.
    """
    folder = Path(folder)
    check_bundle_folder(folder)
    cache = open_cache(pipeline.config)
    if cache is None or pipeline.config.memory == "streamed":
        raise ConfigError(
            "a bundle is made of kept builds of whole components",
            allowed="cache=True, and memory='resident' or 'staged'",
        )
    if pipeline.config.vae_decoder == "tiny":
        raise ConfigError(
            "a bundle is made of one checkpoint, and vae_decoder is 'tiny'",
            allowed="vae_decoder='full'",
            fix="remove vae_decoder",
        )
    if any(each.strength is not None for each in pipeline.list_adapters()):
        raise ConfigError(
            "a bundle is made of the checkpoint's own weights, and there are adapters",
            allowed="a pipeline without adapters",
            fix="leave adapters out, or merge them into a checkpoint first",
        )
    builds: dict[str, list[ComponentBuild]] = defaultdict(list)
    drawn = [pipeline.choose_size(height=height, width=width) for width, height in sizes]
    read = list(dict.fromkeys(pipeline.count_chunks(each) for each in chunks))
    controls = (True, False) if pipeline.config.controlnets else (False,)
    for (width, height), count, own, control in product(sizes, chunks, shown, controls):
        asked: Any = {"height": height, "width": width, "chunks": count, "shown": own}
        pipeline.build(**asked, encoder=encoder, control=control)
        for build in pipeline.plan_builds(**asked, encoder=encoder, control=control):
            known = [(each.inputs, each.outputs) for each in builds[build.name]]
            if isinstance(build, (TiledBuild, BlendedBuild)):
                raise ConfigError(
                    f"the decoder of {drawn[-1][0]} x {drawn[-1][1]} runs in tiles, and a bundle "
                    "is made of builds of whole components",
                    allowed="vae_tiling='off', and sizes that fit into memory",
                    fix="add vae_tiling='off', or leave this size out",
                )
            if (build.inputs, build.outputs) not in known:
                builds[build.name].append(build)
    pipeline.close()  # weights are read once more, and need not be in memory twice
    with _appear_whole(folder) as unfinished, explain_full_disk("the bundle", folder.parent):
        _copy_model(pipeline, unfinished / MODEL_FOLDER)
        components = {
            name: _write_component(each, pipeline, cache, unfinished)
            for name, each in builds.items()
        }
        if pipeline.refiner is not None:
            write_bundle(pipeline.refiner, drawn, unfinished / REFINER_FOLDER, chunks)
        bundle = Bundle(
            schema_version=SCHEMA,
            made_by=__version__,
            model=pipeline.checkpoint.name,
            model_digest=pipeline.checkpoint.digest(),
            family=pipeline.checkpoint.family.name,
            sizes=drawn,
            config=_choose_options(pipeline, drawn),
            pipeline_options=dict(pipeline.checkpoint.pipeline_options),
            components=components,
            files=_measure(unfinished),
            chunks=read,
            shown=list(dict.fromkeys(each or 1 for each in shown)),
        )
        content = json.loads(bundle.model_dump_json())
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        (unfinished / BUNDLE_FILE).write_text(text, encoding="utf-8")
    return bundle


def _write_component(
    builds: Sequence[ComponentBuild],
    pipeline: DiffusionPredictor[Any],
    cache: ArtifactCache,
    folder: Path,
) -> BundledComponent:
    first, written = builds[0], []
    kept = [_list_weights(build, cache) for build in builds]
    weights = f"{WEIGHTS_FOLDER}/{first.name}.safetensors" if any(kept) else None
    with ExitStack() as opened:
        blobs = None
        if weights is not None:
            (folder / WEIGHTS_FOLDER).mkdir(exist_ok=True)
            blobs = opened.enter_context(BlobWriter(folder / weights, sum(map(len, kept))))
        for number, build in enumerate(builds, 1):
            with build.lend_artifact(cache) as artifact:
                written.append(_write_build(build, artifact, blobs, folder, number))
    checkpoint, spec, source = pipeline.checkpoint, first.placement.spec, first.network.source
    own = [name for name in checkpoint.family.networks if checkpoint.tensors(name) is source]
    network = own[0] if own else first.name
    if not own:
        _write_config(folder / MODEL_FOLDER / network, asdict(first.network.config))
    return BundledComponent(
        network=network,
        engine=first.placement.engine.name,
        device=str(spec.device),
        precision=spec.precision,
        weights=weights,
        builds=written,
        int8=asdict(report) if (report := pipeline.component(first.name).int8) else None,
        weight_bits=spec.weight_bits if spec.precision == INT8 else None,
        digest=source.digest(),
    )


def _list_weights(build: ComponentBuild, cache: ArtifactCache) -> list[str]:
    with build.lend_artifact(cache) as artifact:
        return [
            name for _, program, place in artifact.parts for name in check_manifest(program, place)
        ]


def _write_build(
    build: ComponentBuild,
    artifact: KeptBuild,
    blobs: BlobWriter | None,
    folder: Path,
    number: int,
) -> BundledBuild:
    name = f"{GRAPHS_FOLDER}/{build.name}-{number}"
    for _, program, place in artifact.parts:
        weights = {}
        for key, weight in check_manifest(program, place).items():
            assert blobs is not None
            weights[key] = Weight(blobs.add(derive(weight, program.tensors)), weight.dtype)
        copy_export(place, folder / name / place.relative_to(artifact.folder), weights)
    if len(artifact.parts) > 1:
        write_stages([part.stage for part in artifact.parts], folder / name)
    return BundledBuild(
        inputs=[each.describe() for each in build.inputs],
        outputs=[each.describe() for each in build.outputs],
        folder=name,
        passes=dict(artifact.passes),
        changes_picture=name_changes(build.passes, artifact.passes),
        **asdict(artifact.accuracy),
    )


def _copy_model(pipeline: DiffusionPredictor[Any], folder: Path) -> None:
    """Copy configs, and the folders of tokenizers."""
    checkpoint = pipeline.checkpoint
    for name in checkpoint.family.networks:
        _write_config(folder / name, checkpoint.config(name))
    scheduler = "scheduler_config.json"
    _write_config(folder / "scheduler", checkpoint.config("scheduler"), scheduler)
    for name, source in list_tokenizer_folders(pipeline).items():
        (folder / name).mkdir()
        for each in sorted(source.iterdir()):
            if each.is_file():
                shutil.copyfile(each, folder / name / each.name)


def _write_config(folder: Path, config: Mapping[str, Any], file: str = "config.json") -> None:
    folder.mkdir(parents=True)
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / file).write_text(text, encoding="utf-8")


def _choose_options(
    pipeline: DiffusionPredictor[Any], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Choose the options that a bundle draws with by default."""
    config = pipeline.config
    options = config.model_dump(exclude_unset=True, exclude=_OF_THE_MACHINE)
    drop_parts(options)
    if config.refiner is not None:
        options["refiner"] = {"path": REFINER_FOLDER, "denoising_end": config.refiner.denoising_end}
    for name, places in pipeline.name_added().items():
        sections = options.get(name, ())
        options[name] = [{**own, **inside} for own, inside in zip(sections, places, strict=True)]
    if not config.enable_dynamic_shape:
        width, height = sizes[0]
        options["defaults"] = {**options.get("defaults", {}), "width": width, "height": height}
    chosen: dict[str, Any] = json.loads(json.dumps(options))
    return chosen


def _measure(folder: Path) -> dict[str, tuple[int, int]]:
    paths = sorted(each for each in folder.rglob("*") if each.is_file())
    names = [each.relative_to(folder).as_posix() for each in paths]
    return dict(zip(names, measure_files(paths), strict=True))


@contextmanager
def _appear_whole(folder: Path) -> Iterator[Path]:
    """Lend a folder beside another, which gets its name on success, and else is removed."""
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        check_bundle_folder(folder)  # another process may have made it meanwhile
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
