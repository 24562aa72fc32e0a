"""Every option of a configuration does something: one case each, and no option without one."""

import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd
from tokenizer_folders import write_json

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, GenerationRequest, SDPipeline
from fastdeploy_diffusion.checkpoints import open_checkpoint
from fastdeploy_diffusion.config.sections import ConfigSection
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.errors import (
    AdapterError,
    CheckpointError,
    ConfigError,
    EngineUnavailableError,
    RequestError,
)
from fastdeploy_diffusion.predictors.build_cache import open_cache
from fastdeploy_diffusion.runtime.cache import default_cache_folder
from fastdeploy_diffusion.size_range import SizeRange

REQUEST = GenerationRequest(prompt="a cat", seed=1, num_inference_steps=1, height=16, width=16)
Case = Callable[["Bench"], None]
CASES: dict[str, Case] = {}


class Bench:
    """A small checkpoint, a free folder, and what a pipeline with an option does."""

    def __init__(self, model: Path, flux: Path, folder: Path) -> None:
        self.model, self.flux, self.folder = model, flux, folder

    def open(self, **options: Any) -> SDPipeline:
        choice = {"model_path": self.model, "engine": "paddle-eager", **options}
        return SDPipeline(DiffusionConfig(**choice))

    def settings(self, **defaults: Any) -> dict[str, Any]:
        """What a request gets that says nothing."""
        return self.open(defaults=defaults).describe_request(GenerationRequest(prompt=""))

    def report(self, **options: Any) -> list[Any]:
        return list(self.open(**options).report.components)

    @functools.cached_property
    def picture(self) -> np.ndarray:
        """What is drawn without any option."""
        return self.draw()

    def draw(self, **options: Any) -> np.ndarray:
        return np.asarray(self.open(**options).generate(REQUEST).images[0])

    @contextmanager
    def falls_back(self, word: str) -> Iterator[None]:
        with pytest.warns(FallbackWarning, match=word):
            yield


def case(*names: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        for name in names:
            assert name not in CASES
            CASES[name] = function
        return function

    return add


def list_options(section: type[ConfigSection], prefix: str = "") -> list[str]:
    """Every option by its path; a section by its options."""
    found = [prefix + name for name in section.other_spellings]
    for name, field in section.model_fields.items():
        if name in section.section_names():
            assert isinstance(field.annotation, type)
            found += list_options(field.annotation, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def test_every_option_has_a_case() -> None:
    assert sorted(CASES) == sorted(list_options(DiffusionConfig))


@pytest.fixture(scope="module")
def bench(tiny_sd1: Path, tiny_dev: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny_sd1, tiny_dev, tmp_path_factory.mktemp("options"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "effect" in metafunc.fixturenames:
        names: dict[Case, list[str]] = {}
        for name, function in CASES.items():
            names.setdefault(function, []).append(name)
        metafunc.parametrize("effect", names, ids=[" ".join(each) for each in names.values()])


def test_options_have_their_effect(effect: Case, bench: Bench) -> None:
    effect(bench)


@case("model_path")
def _(bench: Bench) -> None:
    assert bench.open().report.model == str(bench.model)
    with pytest.raises(CheckpointError, match="elsewhere"):
        bench.open(model_path=bench.folder / "elsewhere")


@case("variant")
def _(bench: Bench) -> None:
    folder = shutil.copytree(bench.model, bench.folder / "variant")
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".ema.safetensors"))
    with pytest.raises(CheckpointError, match="variant"):
        bench.open(model_path=folder)
    assert (bench.draw(model_path=folder, variant="ema") == bench.picture).all()


@case("tokenizer_path")
def _(bench: Bench) -> None:
    folder = shutil.copytree(bench.model, bench.folder / "no-tokenizer")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer"):
        bench.open(model_path=folder)
    there = bench.open(model_path=folder, tokenizer_path=bench.model / "tokenizer")
    assert (np.asarray(there.generate(REQUEST).images[0]) == bench.picture).all()


@case("text_encoder.model_path", "denoiser.model_path", "vae.model_path")
def _(bench: Bench) -> None:
    other = write_tiny_sd(bench.folder / "other", seed=9)
    for section in ("text_encoder", "denoiser", "vae"):
        pipeline = bench.open(**{section: {"model_path": other}})
        assert (np.asarray(pipeline.generate(REQUEST).images[0]) != bench.picture).any()


@case("text_encoder_2.model_path")
def _(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="text_encoder_2"):
        bench.open(text_encoder_2={"model_path": bench.model})
    options = {"text_encoder_2": {"model_path": bench.folder / "elsewhere"}}
    with pytest.raises(CheckpointError, match="elsewhere"):
        FluxPipeline(DiffusionConfig(model_path=bench.flux, **options))


@case("scheduler")
def _(bench: Bench) -> None:
    assert bench.open().report.scheduler == "PNDMScheduler"
    assert bench.open(scheduler="ddim").report.scheduler == "DDIMScheduler"
    karras = bench.open(scheduler="dpmpp_2m_karras").report.scheduler
    assert karras == "DPMSolverScheduler (DPM++ 2M Karras)"


@case("prediction_type")
def _(bench: Bench) -> None:
    folder = shutil.copytree(bench.model, bench.folder / "v-prediction")
    file = folder / "scheduler" / "scheduler_config.json"
    config = open_checkpoint(bench.model).config("scheduler") | {"prediction_type": "v_prediction"}
    write_json(file.parent, {file.name: config})
    wanted = bench.draw(model_path=folder)
    assert (bench.draw(prediction_type="v_prediction") == wanted).all()
    assert (wanted != bench.picture).any()


@case("engine")
def _(bench: Bench) -> None:
    for engine in ("openvino", "onnxruntime", "paddle", "paddle-eager"):
        assert {each.engine for each in bench.report(engine=engine)} == {engine}
    assert {each.engine for each in bench.report(engine="auto")} == {"openvino"}


@case("use_tensorrt")
def _(bench: Bench) -> None:
    config = DiffusionConfig(model_path=bench.model, use_tensorrt=True, cpu_fallback=False)
    with pytest.raises(EngineUnavailableError, match="tensorrt"):
        SDPipeline(config)


@case("device")
def _(bench: Bench) -> None:
    assert {each.device for each in bench.report()} == {"cpu"}
    with pytest.raises(EngineUnavailableError, match="gpu:99"):
        bench.open(device="gpu:99", engine="paddle", cpu_fallback=False)


@case("precision")
def _(bench: Bench) -> None:
    for precision in ("fp32", "fp16", "bf16"):
        found = bench.report(engine="onnxruntime", precision=precision)
        assert {each.precision for each in found} == {precision}
    # Nothing was measured, so that nothing is known to be right in half precision.
    assert {each.precision for each in bench.report(precision="auto")} == {"fp32"}


@case("threads")
def _(bench: Bench) -> None:
    for threads in (None, 1, 3):
        builds = bench.open(threads=threads).plan_builds()
        assert {each.placement.spec.threads for each in builds} == {threads}


@case("target")
def _(bench: Bench) -> None:
    with pytest.raises(EngineUnavailableError, match="for sm20 cannot be built here"):
        bench.open(engine="tensorrt", device="gpu", target="sm20")


@case("int8_quality", "calibration_prompts")
def _(bench: Bench) -> None:
    # What they do in int8 is in tests/compiler/test_int8_search.py.
    with pytest.raises(ConfigError, match="int8_quality is 32, and nothing is in int8"):
        bench.open(int8_quality=32)
    there = bench.open(
        engine="openvino", precision="int8", calibration_prompts=bench.folder / "none.txt"
    )
    with pytest.raises(ConfigError, match=r"none\.txt"):
        there.quantize()


@case("controlnets")
def _(bench: Bench) -> None:
    # What they do is in tests/pipelines/test_controlled_pictures.py.
    with pytest.raises(CheckpointError, match="none does not exist"):
        bench.open(controlnets=[bench.folder / "none"])


@case("refiner")
def _(bench: Bench) -> None:
    # What it does is in tests/pipelines/test_refiner.py.
    with pytest.raises(ConfigError, match=r"refiner is given, which SD 1\.x does not have"):
        bench.open(refiner=bench.model)


@case("ip_adapters")
def _(bench: Bench) -> None:
    # What they do is in tests/pipelines/test_image_prompts.py.
    with pytest.raises(CheckpointError, match="none does not exist"):
        bench.open(ip_adapters=[bench.folder / "none"])


@case("adapters")
def _(bench: Bench) -> None:
    # What they do is in tests/pipelines/test_adapters.py.
    with pytest.raises(AdapterError, match="none does not exist"):
        bench.open(adapters=[bench.folder / "none"])


@case("int8_portable")
def _(bench: Bench) -> None:
    # What it does to weights is in tests/compiler/test_quantizing.py.
    with pytest.raises(ConfigError, match="int8_portable is true, and nothing is in int8"):
        bench.open(int8_portable=True, precision="int8-weights")
    with pytest.raises(ConfigError, match="nothing is in int8 on a CPU"):
        bench.open(int8_portable=True, precision="int8", device="gpu")
    components = bench.open(engine="openvino", int8_portable=True, denoiser={"precision": "int8"})
    specs = {
        name: components.component(name).placement.spec for name in ("denoiser", "vae_decoder")
    }
    assert [specs[name].weight_bits for name in ("denoiser", "vae_decoder")] == [7, 8]


@case("cpu_fallback")
def _(bench: Bench) -> None:
    with bench.falls_back("tensorrt"):
        assert {each.engine for each in bench.report(engine="tensorrt")} == {"openvino"}
    with pytest.raises(EngineUnavailableError, match="tensorrt"):
        bench.open(engine="tensorrt", cpu_fallback=False)


@case("enable_dynamic_shape")
def _(bench: Bench) -> None:
    def has_ranges(**options: Any) -> bool:
        (sample, *_) = bench.open(**options).plan_builds()[1].inputs
        return any(isinstance(size, SizeRange) for size in sample.shape)

    assert not has_ranges()
    assert has_ranges(enable_dynamic_shape=True)


@case("shapes.height", "shapes.width")
def _(bench: Bench) -> None:
    shapes = {"height": [16, 32, 48], "width": [16, 32, 64]}
    pipeline = bench.open(enable_dynamic_shape=True, shapes=shapes)
    for height, width in ((16, 64), (48, 16)):
        pipeline.describe_request(GenerationRequest(prompt="", height=height, width=width))
    for height, width in ((64, 32), (32, 80)):
        with pytest.raises(RequestError, match=r"16 to (48|64)"):
            pipeline.describe_request(GenerationRequest(prompt="", height=height, width=width))


@case("shapes.batch")
def _(bench: Bench) -> None:
    def ask(pictures: int, **options: Any) -> None:
        request = GenerationRequest(prompt="", num_images_per_prompt=pictures)
        bench.open(enable_dynamic_shape=True, **options).describe_request(request)

    ask(3)
    ask(1, shapes={"batch": [1, 2, 2]})
    with pytest.raises(RequestError, match="2"):
        ask(3, shapes={"batch": [1, 2, 2]})


@case("shapes.chunks")
def _(bench: Bench) -> None:
    def ask(chunks: int, **options: Any) -> None:
        asked = {"prompt_syntax": "weighted", "prompt_chunks": chunks}
        pipeline = bench.open(enable_dynamic_shape=True, **options)
        pipeline.describe_request(GenerationRequest(prompt="", **asked))

    ask(1)
    ask(3, shapes={"chunks": [1, 1, 3]})
    with pytest.raises(RequestError, match="take 3 chunks"):
        ask(3)


@case("passes")
def _(bench: Bench) -> None:
    def name(**options: Any) -> set[tuple[str, ...]]:
        builds = bench.open(**options).plan_builds()
        return {tuple(each.name for each in build.passes) for build in builds}

    assert name() == {()}
    assert name(passes=["merge-kv"]) == {("merge-kv",)}
    assert name(engine="onnxruntime") == {("fuse-attention",)}
    assert name(engine="onnxruntime", passes=[]) == {()}


@case("memory")
def _(bench: Bench) -> None:
    for memory, left in (("resident", True), ("staged", False)):
        pipeline = bench.open(memory=memory)
        pipeline.build()
        assert pipeline.report.memory == memory
        names = [each.name for each in pipeline.report.components]
        kept = [len(pipeline.component(name).pool.sessions) for name in names]
        assert kept == [left] * 3
    with pytest.raises(ConfigError, match="memory is 'streamed'"):
        bench.open(memory="streamed")


@case("vae_tiling")
def _(bench: Bench) -> None:
    side = 16 + open_checkpoint(bench.model).config("vae")["sample_size"]
    report = bench.open(vae_tiling="blended").build(height=side, width=side)
    assert report.components[-1].changes_picture == ("blended-tiles",)
    assert bench.open().build(height=side, width=side).components[-1].changes_picture == ()


@case("vae_decoder", "tiny_vae_path")
def _(bench: Bench) -> None:
    options = {"tiny_vae_path": bench.model / "vae"}  # not a tiny one
    bench.open(**options)
    with pytest.raises(CheckpointError, match="AutoencoderTiny"):
        bench.open(vae_decoder="tiny", **options)
    with pytest.raises(ConfigError, match="tiny_vae_path"):
        bench.open(vae_decoder="tiny")


@case("cache", "cache_dir")
def _(bench: Bench) -> None:
    folder = bench.folder / "builds"
    options = {"text_encoder": {"engine": "paddle"}, "cache_dir": folder}
    bench.open(**options, cache=False).build()
    assert not folder.exists()
    bench.open(**options).build()
    assert bench.open(**options).build().components[0].cached
    assert any(folder.iterdir())
    assert open_cache(DiffusionConfig(model_path="m")).root == default_cache_folder()


@case("cache_limit_gib")
def _(bench: Bench) -> None:
    config = DiffusionConfig(model_path="m", cache_dir=bench.folder, cache_limit_gib=0.5)
    assert open_cache(config).limit == 2**29


@case("embedding_cache.memory_mib")
def _(bench: Bench) -> None:
    for mib, kept in ((0.0, 0), (1.0, 2)):
        pipeline = bench.open(embedding_cache={"memory_mib": mib})
        pipeline.generate(REQUEST)
        assert pipeline.generate(REQUEST).embeddings[0].kept == kept


@case("embedding_cache.disk_mib")
def _(bench: Bench) -> None:
    for mib, kept in ((0.0, 0), (1.0, 2)):
        options = {"embedding_cache": {"disk_mib": mib}, "cache_dir": bench.folder / f"{mib}"}
        bench.open(**options).generate(REQUEST)
        assert bench.open(**options).generate(REQUEST).embeddings[0].kept == kept


@case(
    "defaults.height",
    "defaults.width",
    "defaults.num_inference_steps",
    "defaults.guidance_scale",
    "defaults.negative_prompt",
    "defaults.prompt_syntax",
    "defaults.seed",
    "defaults.hires_scale",
    "defaults.hires_strength",
    "defaults.hires_upscaler",
)
def _(bench: Bench) -> None:
    given = {"height": 48, "width": 64, "num_inference_steps": 3, "guidance_scale": 2.5}
    given |= {"negative_prompt": "ugly", "prompt_syntax": "weighted", "seed": 12}
    given |= {"hires_scale": 1.5, "hires_strength": 0.7, "hires_upscaler": "latent"}
    plain, changed = bench.settings(), bench.settings(**given)
    assert {name: changed[name] for name in given} == given
    assert all(plain[name] != value for name, value in given.items())
    # A request wins over them.
    asked = GenerationRequest(prompt="", **{**given, "seed": 13, "height": 32})
    settings = bench.open(defaults=given).describe_request(asked)
    assert (settings["seed"], settings["height"], settings["width"]) == (13, 32, 64)


@case("defaults.max_sequence_length")
def _(bench: Bench) -> None:
    for length in (None, 7):
        options = {"engine": "paddle-eager", "defaults": {"max_sequence_length": length}}
        pipeline = FluxPipeline(DiffusionConfig(model_path=bench.flux, **options))
        settings = pipeline.describe_request(GenerationRequest(prompt=""))
        assert settings["max_sequence_length"] == (length or 512)


@case("paddle.gpu_passes")
def _(bench: Bench) -> None:
    # What runs them needs a GPU; tests/engines/test_paddle_passes.py has the rest of the way.
    options = {"device": "gpu", "paddle": {"gpu_passes": ["silu_fuse_pass"]}}
    for engine in ("auto", "paddle"):
        config = DiffusionConfig(model_path="m", engine=engine, **options)
        chosen = config.component("denoiser").options["paddle"]
        assert chosen == {"gpu_passes": ("silu_fuse_pass",)}


@case("tensorrt.optimization_level", "tensorrt.workspace_gib")
def _(bench: Bench) -> None:
    given = {"optimization_level": 1, "workspace_gib": 2.0}
    config = DiffusionConfig(model_path="m", engine="tensorrt", device="gpu", tensorrt=given)
    assert config.component("denoiser").options == {"tensorrt": given}
    # What builds with them needs TensorRT; tests/engines/test_tensorrt_options.py does.
    pytest.importorskip("tensorrt_rtx")
    options = {"engine": "tensorrt", "device": "gpu", "target": "sm86", "tensorrt": given}
    builds = bench.open(**options).plan_builds()
    assert [each.placement.spec.options for each in builds] == [given] * 3


COMPONENTS = ("text_encoder", "denoiser", "vae")


def _differ(bench: Bench, section: str, name: str, **options: Any) -> None:
    """The option of a section goes to its component, and to no other one."""
    found = [getattr(each, name) for each in bench.report(**options)]
    at = COMPONENTS.index(section)
    others = [each for index, each in enumerate(found) if index != at]
    assert len(set(others)) == 1
    assert found[at] != others[0]


def _add_section(section: str) -> None:
    @case(f"{section}.engine")
    def _(bench: Bench) -> None:
        _differ(bench, section, "engine", **{section: {"engine": "paddle"}})

    @case(f"{section}.device")
    def _(bench: Bench) -> None:
        with bench.falls_back("gpu:99"):
            _differ(bench, section, "fallback", **{section: {"device": "gpu:99"}})

    @case(f"{section}.precision")
    def _(bench: Bench) -> None:
        options = {"engine": "onnxruntime", section: {"precision": "fp16"}}
        _differ(bench, section, "precision", **options)
        # A precision of one's own is pinned; auto is none.
        for precision, pinned_by in (("fp16", f"{section}.precision"), ("auto", None)):
            config = DiffusionConfig(model_path="m", **{section: {"precision": precision}})
            choice = config.component(section)
            assert (choice.precision, choice.pinned_by) == (precision, pinned_by)


for each in COMPONENTS:
    _add_section(each)
