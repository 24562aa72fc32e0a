import copy
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastdeploy_diffusion
from fastdeploy_diffusion import DiffusionConfig
from fastdeploy_diffusion.config import ComponentConfig, EngineChoice, RequestDefaults
from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import ENGINES, PASSES
from fastdeploy_diffusion.scheduler_names import SCHEDULERS

ROOT = Path(__file__).parents[2]
IN_THE_BOX = ("flux-shapes", "shapes-edges", "shapes")
HEIGHTS = {"sd15": 512, "sd21": 768, **dict.fromkeys(IN_THE_BOX, 128)}  # the others are for 1024
PRESETS = ("flux-dev", "flux-schnell", "flux-shapes", "sd15", "sd21", "sdxl", *IN_THE_BOX[1:])


def refuse(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        DiffusionConfig(**options)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    file = folder / "file.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def refuse_yaml(folder: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        DiffusionConfig.from_yaml(write(folder, text), **overrides)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_published_snippet_runs_as_written() -> None:
    config = DiffusionConfig(
        model_path="/models/stable-diffusion",
        device="gpu",
        use_tensorrt=True,
        enable_dynamic_shape=True,
    )
    assert (config.engine, config.device) == ("tensorrt", "gpu")
    assert config.enable_dynamic_shape
    assert "use_tensorrt" not in config.model_dump()


def test_defaults() -> None:
    none = {"engine": None, "device": None, "precision": None, "model_path": None}
    assert DiffusionConfig(model_path="m").model_dump() == {
        "model_path": "m",
        "calibration_prompts": None,
        "int8_quality": None,
        "int8_portable": False,
        "variant": None,
        "tokenizer_path": None,
        "scheduler": None,
        "prediction_type": None,
        "engine": "auto",
        "device": "cpu",
        "precision": "fp32",
        "threads": None,
        "target": None,
        "cpu_fallback": True,
        "enable_dynamic_shape": False,
        "passes": None,
        "memory": "resident",
        "vae_tiling": "auto",
        "vae_decoder": "full",
        "tiny_vae_path": None,
        "cache": True,
        "cache_dir": None,
        "cache_limit_gib": 20.0,
        "embedding_cache": {"memory_mib": 256.0, "disk_mib": 0.0},
        "controlnets": (),
        "refiner": None,
        "ip_adapters": (),
        "adapters": (),
        "defaults": dict.fromkeys(RequestDefaults.model_fields),
        "shapes": {"batch": (1, 2, 8), "height": None, "width": None, "chunks": (1, 1, 1)},
        "paddle": {"gpu_passes": None},
        "tensorrt": {"optimization_level": None, "workspace_gib": None},
        "text_encoder": none,
        "text_encoder_2": {"model_path": None},
        "denoiser": none,
        "vae": none,
    }


def test_none_means_not_given() -> None:
    assert DiffusionConfig(
        model_path="m", device=None, use_tensorrt=None, vae={"engine": None}
    ) == DiffusionConfig(model_path="m")


@pytest.mark.parametrize(
    ("options", "problem", "fix"),
    [
        ({"devise": "cpu"}, "unknown option 'devise'", "did you mean 'device'?"),
        ({"backend": "cinn"}, "unknown option 'backend'", "did you mean 'engine'?"),
        ({"unet": {}}, "unknown option 'unet'", "did you mean 'denoiser'?"),
        ({"height": 512}, "unknown option 'height'", "did you mean 'defaults.height'?"),
        ({"steps": 5}, "unknown option 'steps'", "did you mean 'defaults.num_inference_steps'?"),
        ({"cfg_scale": 5}, "unknown option 'cfg_scale'", "did you mean 'defaults.guidance_scale'?"),
        ({"preset": "sd15"}, "unknown option 'preset'", "DiffusionConfig.from_preset("),
        ({"qqqq": 1}, "unknown option 'qqqq'", "remove the option"),
        ({"vae": {"engin": "cinn"}}, "unknown option 'vae.engin'", "did you mean 'engine'?"),
        ({"vae": {"threads": 1}}, "unknown option 'vae.threads'", "remove the option"),
        ({"device": "cuda"}, "device is 'cuda'", "did you mean 'gpu'?"),
        ({"device": "gpu:x"}, "device is 'gpu:x'", ""),
        ({"device": ""}, "device is ''", ""),
        ({"engine": "TRT"}, "engine is 'TRT'", "did you mean 'tensorrt'?"),
        ({"engine": "tensor_rt"}, "engine is 'tensor_rt'", "did you mean 'tensorrt'?"),
        ({"precision": "float16"}, "precision is 'float16'", "did you mean 'fp16'?"),
        ({"precision": 16}, "precision is 16", "correct it"),
        ({"memory": "stage"}, "memory is 'stage'", "did you mean 'staged'?"),
        ({"memory": "qqqq"}, "memory is 'qqqq'", "take one of these, or leave the option"),
        ({"scheduler": "turbo"}, "scheduler is 'turbo'", "take one of these, or leave the option"),
        ({"embedding_cache": {"memory_mib": -1}}, "embedding_cache.memory_mib is -1", "correct it"),
        ({"embedding_cache": {"disk": 1}}, "unknown option 'embedding_cache.disk'", "'disk_mib'?"),
        (
            {"embedding_cache": {"disk_mib": 9}, "cache": False},
            "embedding_cache.disk_mib is 9, and cache is false",
            "remove cache=False",
        ),
        ({"vae": {"device": "cuda:1"}}, "vae.device is 'cuda:1'", ""),
        ({"vae": 3}, "vae is 3", "correct it"),
        ({"vae": RequestDefaults()}, "vae is RequestDefaults", "correct it"),
        ({"threads": 0}, "threads is 0", "correct it"),
        ({"threads": 1025}, "threads is 1025", "correct it"),
        ({"threads": 10**23}, "threads is 1", "correct it"),
        ({"cache_limit_gib": 1e300}, "cache_limit_gib is 1e+300", "correct it"),
        ({"embedding_cache": {"memory_mib": 1e300}}, "embedding_cache.memory_mib is 1e+300", ""),
        ({"embedding_cache": {"disk_mib": 1e300}}, "embedding_cache.disk_mib is 1e+300", ""),
        ({"tensorrt": {"workspace_gib": 1e300}}, "tensorrt.workspace_gib is 1e+300", ""),
        (
            {"enable_dynamic_shape": True, "shapes": {"height": 10**30}},
            "shapes.height is 1",
            "three whole numbers from 1 to 2147483647",
        ),
        ({"threads": True}, "threads is True", "correct it"),
        ({"threads": "4"}, "threads is '4'", "write it without quotes"),
        ({"device": "gpu", "target": "8.6"}, "target is '8.6'", "compute capability"),
        ({"target": "sm86"}, "target is 'sm86', and no component runs on a GPU", "device='gpu'"),
        (
            {"device": "gpu", "target": "sm86", "cache": False},
            "target is 'sm86', and builds are not kept",
            "remove cache=False",
        ),
        ({"cpu_fallback": "no"}, "cpu_fallback is 'no'", "write it without quotes"),
        ({"cpu_fallback": 1}, "cpu_fallback is 1", "correct it"),
        ({"model_path": ""}, "model_path is ''", "correct it"),
        ({"model_path": 3}, "model_path is 3", "correct it"),
        ({"variant": ""}, "variant is ''", "correct it"),
        ({"defaults": {"height": 0}}, "defaults.height is 0", "correct it"),
        ({"defaults": {"width": 5.5}}, "defaults.width is 5.5", "correct it"),
        ({"defaults": {"guidance_scale": float("nan")}}, "defaults.guidance_scale is nan", ""),
        ({"defaults": {"guidance_scale": -1}}, "defaults.guidance_scale is -1", ""),
        ({"defaults": {"guidance_scale": 1001}}, "defaults.guidance_scale is 1001", ""),
        ({"defaults": {"guidance_scale": True}}, "defaults.guidance_scale is True", ""),
        ({"defaults": {"seed": 2**64}}, "defaults.seed is 18446744073709551616", ""),
        ({"defaults": {"seed": 10**5000}}, "defaults.seed is a number of about 5001 digits", ""),
        ({"defaults": {"negative_prompt": 3}}, "defaults.negative_prompt is 3", ""),
        ({"shapes": {"batch": 4}}, "shapes are given, and enable_dynamic_shape is false", "add"),
        ({"shapes": {"height": [8, 4, 16]}}, "shapes.height is [8, 4, 16]", "three whole numbers"),
        ({"shapes": {"width": [8, 16]}}, "shapes.width is [8, 16]", "three whole numbers"),
        ({"shapes": {"batch": 0}}, "shapes.batch is 0", "three whole numbers"),
        ({"shapes": {"batch": ["1", 2, 3]}}, "shapes.batch is ['1', 2, 3]", "three whole"),
        ({"shapes": {"depth": 4}}, "unknown option 'shapes.depth'", "did you mean 'width'?"),
        ({"use_tensorrt": "yes"}, "use_tensorrt is 'yes'", "engine='tensorrt'"),
        ({"use_tensorrt": 1}, "use_tensorrt is 1", "engine='tensorrt'"),
        ({"engine": "paddle", "use_tensorrt": True}, "use_tensorrt is true, but engine", "remove"),
        ({"engine": "tensorrt", "use_tensorrt": False}, "use_tensorrt is false, but", "remove"),
    ],
)
def test_option_is_refused(options: dict[str, Any], problem: str, fix: str) -> None:
    message = refuse(**{"model_path": "m", **options})
    assert message.startswith(problem)
    assert "\n  allowed: " in message
    assert f"\n  fix: {fix}" in message or (fix in message.partition("\n  fix: ")[2] and fix)


def test_every_refused_option_is_listed() -> None:
    message = refuse(device="cuda", defaults={"height": -1, "widht": 2})
    for problem in ("model_path is missing", "device is", "defaults.height is", "defaults.widht"):
        assert problem in message


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"use_tensorrt": True}, "tensorrt"),
        ({"use_tensorrt": True, "engine": "tensorrt"}, "tensorrt"),
        ({"use_tensorrt": False}, "auto"),
        ({"use_tensorrt": False, "device": "gpu:1"}, "paddle"),
        ({"use_tensorrt": False, "engine": "auto", "device": "gpu"}, "paddle"),
        ({"use_tensorrt": False, "vae": {"device": "gpu"}}, "paddle"),
        ({"use_tensorrt": False, "vae": ComponentConfig(device="gpu")}, "paddle"),
        ({"use_tensorrt": False, "engine": "openvino"}, "openvino"),
    ],
)
def test_use_tensorrt_is_another_spelling(options: dict[str, Any], engine: str) -> None:
    assert DiffusionConfig(model_path="m", **options).engine == engine


@pytest.mark.parametrize("device", ["cpu", "gpu", "gpu:1", "xpu", "xpu:0"])
def test_devices(device: str) -> None:
    assert DiffusionConfig(model_path="m", device=device).device == device


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**64 - 1])
def test_seeds_that_torch_takes(seed: int) -> None:
    assert RequestDefaults(seed=seed).seed == seed


def test_paths_are_expanded_and_may_be_path_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    config = DiffusionConfig(model_path=Path("~/m"), tokenizer_path="~/t")
    assert (config.model_path, config.tokenizer_path) == ("/home/user/m", "/home/user/t")


def test_components_override_the_pipeline() -> None:
    config = DiffusionConfig(
        model_path="m",
        device="gpu:1",
        precision="fp16",
        threads=2,
        vae={"precision": "fp32"},
        text_encoder=ComponentConfig(engine="paddle-eager", device="cpu"),
    )
    assert config.component("denoiser") == EngineChoice("auto", "gpu:1", "fp16", 2)
    assert config.component("vae") == EngineChoice(
        "auto", "gpu:1", "fp32", 2, pinned_by="vae.precision"
    )
    assert config.component("text_encoder") == EngineChoice("paddle-eager", "cpu", "fp16", 2)
    with pytest.raises(ConfigError, match=r"'unet'\n.*\n.*did you mean 'denoiser'"):
        config.component("unet")


def test_config_round_trips() -> None:
    config = DiffusionConfig.from_preset("sd15", model_path="m", vae={"engine": "openvino"})
    for other in (
        DiffusionConfig(**config.model_dump()),
        DiffusionConfig.model_validate(config.model_dump()),
        DiffusionConfig.model_validate_json(config.model_dump_json()),
        DiffusionConfig.load(keywords=config.model_dump()),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
        config.model_copy(),
    ):
        assert other == config
        assert hash(other) == hash(config)
        assert other.digest() == config.digest()


def test_digest_is_the_sha256_of_canonical_json() -> None:
    config = DiffusionConfig(model_path="模型")
    text = json.dumps(config.model_dump(), sort_keys=True, separators=(",", ":"))
    assert config.digest() == hashlib.sha256(text.encode()).hexdigest()
    assert config.digest() != config.model_copy(update={"threads": 2}).digest()


def test_config_does_not_change() -> None:
    config = DiffusionConfig(model_path="m")
    with pytest.raises(ConfigError, match=r"model_copy\(update={'device'"):
        config.device = "gpu"
    with pytest.raises(ConfigError, match="height cannot be set"):
        config.defaults.height = 3
    assert config.model_copy(update={"device": "gpu"}).device == "gpu"
    with pytest.raises(ConfigError, match="device is 'cuda'"):
        config.model_copy(update={"device": "cuda"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: ComponentConfig(engine="trt"),
        lambda: RequestDefaults(height="512"),
        lambda: DiffusionConfig.model_validate({"model_path": "m", "vae": {"engine": "trt"}}),
        lambda: DiffusionConfig.model_validate(3),
        lambda: DiffusionConfig.model_validate_json("{"),
        lambda: DiffusionConfig.model_validate_json('{"model_path": 3}'),
        lambda: DiffusionConfig(model_path="m", vae={3: 4}),
    ],
)
def test_pydantic_errors_never_show(make: Any) -> None:
    with pytest.raises(ConfigError, match="fix: "):
        make()


# Presets


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load(name: str) -> None:
    config = DiffusionConfig.from_preset(name, model_path="m")
    assert config.model_path == "m"
    assert config.defaults.height == HEIGHTS.get(name, 1024)


@pytest.mark.parametrize("name", ["shapes", "flux-shapes"])
def test_models_in_the_box_come_with_their_preset(name: str) -> None:
    folder = Path(fastdeploy_diffusion.__file__).parent / "configs" / name
    assert DiffusionConfig.from_preset(name).model_path == str(folder)


def test_the_controlnet_in_the_box_comes_with_its_preset() -> None:
    folder = Path(fastdeploy_diffusion.__file__).parent / "configs"
    config = DiffusionConfig.from_preset("shapes-edges")
    assert config.model_path == str(folder / "shapes")
    assert [each.path for each in config.controlnets] == [str(folder / "shapes-edges")]


def test_preset_without_model_path_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"preset 'sd15': model_path is missing(.|\n)*model_path="
    ):
        DiffusionConfig.from_preset("sd15")


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        DiffusionConfig.from_preset("sd-15")
    assert caught.value.allowed == ", ".join(PRESETS)
    assert caught.value.fix == "did you mean 'sd15'?"


# YAML and precedence


def test_yaml_starts_from_its_preset(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: sd15\nmodel_path: model\ndefaults:\n  height: 640\n")
    config = DiffusionConfig.from_yaml(file)
    assert (config.defaults.height, config.defaults.width) == (640, 512)
    assert config.model_path == str(tmp_path / "model")
    assert DiffusionConfig.load(preset="sdxl", yaml=file).defaults.width == 1024


def test_paths_in_yaml_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    file = write(tmp_path, "model_path: ../a\ntokenizer_path: ~/t\n")
    config = DiffusionConfig.from_yaml(file)
    assert config.model_path == str(tmp_path.parent / "a")
    assert config.tokenizer_path == "/home/user/t"
    file = write(tmp_path, "model_path: /abs\n")
    assert DiffusionConfig.from_yaml(file).model_path == "/abs"
    assert DiffusionConfig.from_yaml(file, model_path="here").model_path == "here"


def test_command_line_beats_keyword_beats_yaml_beats_preset(tmp_path: Path) -> None:
    yaml = write(tmp_path, "model_path: /y\ndefaults: {height: 2, width: 2, seed: 2}\n")
    config = DiffusionConfig.load(
        preset="sd15",
        yaml=yaml,
        keywords={"defaults": RequestDefaults(width=3, seed=3), "threads": 3, "device": None},
        cli={"defaults": {"seed": 4, "width": None}, "threads": None},
    )
    assert config.defaults == RequestDefaults(
        num_inference_steps=50, guidance_scale=7.5, height=2, width=3, seed=4
    )
    assert (config.threads, config.device) == (3, "cpu")


def test_null_in_yaml_resets_a_preset_and_empty_sections_change_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "preset: sd15\nmodel_path: /m\nvae:\ndefaults:\n  height: null\n")
    config = DiffusionConfig.from_yaml(file)
    assert (config.defaults.height, config.defaults.width) == (None, 512)
    file = write(tmp_path, "preset: sd15\nmodel_path: /m\ndefaults:\n")
    assert DiffusionConfig.from_yaml(file).defaults.height == 512


def test_a_higher_layer_chooses_the_engine_in_either_spelling(tmp_path: Path) -> None:
    file = write(tmp_path, "model_path: /m\nuse_tensorrt: true\n")
    assert DiffusionConfig.from_yaml(file).engine == "tensorrt"
    assert DiffusionConfig.from_yaml(file, engine="cinn").engine == "cinn"
    assert DiffusionConfig.from_yaml(file, use_tensorrt=False).engine == "auto"
    assert DiffusionConfig.from_yaml(file, use_tensorrt=False, device="gpu").engine == "paddle"
    file = write(tmp_path, "model_path: /m\nengine: openvino\n")
    assert DiffusionConfig.from_yaml(file, use_tensorrt=True).engine == "tensorrt"
    assert DiffusionConfig.from_yaml(file, use_tensorrt=False).engine == "openvino"
    message = refuse_yaml(tmp_path, "model_path: /m\nengine: tensorrt\n", use_tensorrt=False)
    assert "use_tensorrt is false, but engine is 'tensorrt'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_path: /m\nvae:\n  device: cuda\n", "file.yaml:3:11: vae.device is 'cuda'\n"),
        ("model_path: /m\nvae:\n  engin: cinn\n", "file.yaml:3:3: unknown option 'vae.engin'\n"),
        ("model_path: /m\n\ndevise: gpu\n", "file.yaml:3:1: unknown option 'devise'\n"),
        ("model_path: /m\nvae: paddle\n", "file.yaml:2:6: vae is 'paddle'\n"),
        ("model_path: /m\ndevice:\n", "file.yaml:2:8: device is None\n"),
        ("model_path: /m\ncpu_fallback: on\n", "file.yaml:2:15: cpu_fallback is 'on'\n"),
        ("model_path: /m\ndefaults: {seed: 1.0}\n", "file.yaml:2:18: defaults.seed is 1.0\n"),
        ("device: cpu\n", "file.yaml:1:1: model_path is missing\n"),
        ("preset: sd51\n", "file.yaml:1:9: there is no preset 'sd51'\n"),
        ("preset: [a]\n", "file.yaml:1:9: preset is of type list\n"),
        ("model_path: &a [x]\nvae: *a\n", "file.yaml:1:13: model_path is ['x']\n"),
        (
            "engine: paddle\nuse_tensorrt: true\nmodel_path: /m\n",
            "file.yaml:2:15: use_tensorrt is true, but engine is 'paddle'\n",
        ),
        ("a: 1\na: 2\n", "file.yaml:2:1: key 'a' was already given at file.yaml:1:1\n"),
    ],
)
def test_yaml_errors_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    assert refuse_yaml(tmp_path, text).startswith(message)


def test_errors_blame_the_layer_that_gave_the_value(tmp_path: Path) -> None:
    file = write(tmp_path, "model_path: /m\nvae: {engine: trt}\ndevice: cuda\n")
    with pytest.raises(ConfigError) as caught:
        DiffusionConfig.load(yaml=file, keywords={"threads": 0}, cli={"vae": {"engine": "tr"}})
    lines = str(caught.value).splitlines()
    assert f"{file}:3:9: device is 'cuda'" in lines
    assert "threads is 0" in lines
    assert "command line: vae.engine is 'tr'" in lines


# Agreement with the rest of the package


def test_every_name_of_the_registries_is_accepted() -> None:
    for engine in ENGINES:
        assert DiffusionConfig(model_path="m", engine=engine).engine == engine
    for precision in PRECISIONS:
        assert DiffusionConfig(model_path="m", precision=precision).precision == precision
    for scheduler in SCHEDULERS:
        assert DiffusionConfig(model_path="m", scheduler=scheduler).scheduler == scheduler
    assert DiffusionConfig(model_path="m", passes=list(PASSES)).passes == tuple(PASSES)


def test_public_names_are_found_and_others_are_not() -> None:
    for name in fastdeploy_diffusion.__all__:
        assert getattr(fastdeploy_diffusion, name) is not None
        assert name in dir(fastdeploy_diffusion)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fastdeploy_diffusion.Nothing


def test_version_is_the_one_that_setup_writes() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split()[-1] == fastdeploy_diffusion.__version__


def test_the_cache_folder_of_a_file_starts_at_the_files_folder(tmp_path: Path) -> None:
    file = write(tmp_path, "model_path: /m\ncache_dir: builds\n")
    assert DiffusionConfig.from_yaml(file).cache_dir == str(tmp_path / "builds")


def test_a_target_is_for_what_runs_on_a_gpu() -> None:
    config = DiffusionConfig(model_path="m", denoiser={"device": "gpu:1"}, target="sm120")
    names = ("text_encoder", "denoiser", "vae")
    assert [config.component(name).target for name in names] == [None, "sm120", None]
