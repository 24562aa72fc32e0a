"""The documentation does what it says: code runs, commands parse, links lead somewhere."""

import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
from diffusers import AutoencoderTiny
from PIL import Image, ImageDraw
from tiny_controlnet import write_tiny_controlnet
from tiny_flux import shrink
from tiny_ip_adapter import write_tiny_image_encoder, write_tiny_ip_adapter
from tiny_lora import write_tiny_lora
from tiny_sdxl import shrink_refiner, shrink_sdxl
from typer.testing import CliRunner
from user_distribution import forget_modules

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest
from fastdeploy_diffusion.benchmark.random_checkpoint import write_random_checkpoint
from fastdeploy_diffusion.cli.app import app
from fastdeploy_diffusion.cli.model import load_config
from fastdeploy_diffusion.config.option_sections import PADDLE_GPU_PASSES
from fastdeploy_diffusion.config.sections import PREDICTION_TYPES, RequestDefaults
from fastdeploy_diffusion.engines.placement import FallbackWarning
from fastdeploy_diffusion.families.published.flux import FLUX_DEV, FLUX_SCHNELL
from fastdeploy_diffusion.registry import ENGINES
from fastdeploy_diffusion.requests.flux_request import FluxRequest
from fastdeploy_diffusion.requests.sdxl_request import SDXLRequest
from fastdeploy_diffusion.schedulers import SCHEDULERS

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [ENGLISH, CHINESE, *sorted((ROOT / "docs").rglob("*.md"))]
# The Chinese README has the blocks of the English one, which one test makes sure of.
PAGES_TO_RUN = [page for page in PAGES if page != CHINESE]

# Where the documentation has its readers' checkpoint; here the model in the box stands for it.
READERS_FOLDER = "/models/stable-diffusion"
READERS_PATHS = ("/models/", "/pictures/", "runs/")
READERS_FLUX = ("/models/FLUX.1-dev", "/models/FLUX.1-schnell")
READERS_TINY = "/models/taesd"
READERS_CONTROLNET = "/models/controlnet-canny"
READERS_IP_ADAPTER = "/models/ip-adapter_sd15.safetensors"
READERS_LORAS = ("/models/lora/paint.safetensors", "/models/lora/detail.safetensors")
READERS_SDXL = "/models/stable-diffusion-xl-base-1.0"
READERS_REFINER = "/models/stable-diffusion-xl-refiner-1.0"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``output`` is the text block that it is said to print, if any."""

    language: str
    code: str
    output: str | None = None

    @property
    def file(self) -> str | None:
        """The file that the block shows, if it begins with its name; it is written, not run."""
        name = re.match(r"# (\S+\.(?:yaml|py|txt))\n", self.code)
        return name[1] if name and self.language in ("yaml", "python", "text") else None


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$(\n\nThis prints:\n)?", text, re.MULTILINE)
    assert text.count("```") == 2 * len(found)
    blocks = []
    for index, (language, code, prints) in enumerate(found):
        output = None
        if prints:
            assert found[index + 1][0] == "text"
            output = found[index + 1][1]
        blocks.append(Block(language, code, output))
    return blocks


def read_commands(page: Path) -> list[list[str]]:
    """The lines of a page's shell blocks, as words."""
    code = "".join(block.code for block in read_blocks(page) if block.language == "bash")
    return [shlex.split(line) for line in code.splitlines()]


def own_commands(page: Path) -> list[list[str]]:
    return [words[1:] for words in read_commands(page) if words[0] == "fastdeploy-diffusion"]


def needs_readers_files(words: list[str]) -> bool:
    return "--config" in words or any(word.startswith(READERS_PATHS) for word in words)


RUNS = [
    (page, words)
    for page in PAGES_TO_RUN
    for words in own_commands(page)
    if not needs_readers_files(words)
]
# These build again and again, or run often: they are run on small models under the presets' names,
# and on the models in the box where published figures are checked.
LONG = {"bench", "build", "bundle", "explain", "passes", "quantize", "tune"}


def list_runs(is_chosen: Callable[[str], bool]) -> list[Any]:
    """The commands to run, as parameters of a test; ``is_chosen`` gets the name of each."""
    return [
        pytest.param(page, words, id=" ".join(words)) for page, words in RUNS if is_chosen(words[0])
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch, distribution):
    """An empty folder to work in, with the files that the pages show, and edges."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, "yaml")
    write_files(tmp_path, "text")
    edges = Image.new("RGB", (128, 128))
    ImageDraw.Draw(edges).ellipse((12, 44, 76, 108), outline="white", width=2)
    edges.save(tmp_path / "edges.png")
    monkeypatch.syspath_prepend(distribution)
    yield tmp_path
    forget_modules(distribution)


@pytest.fixture(scope="session")
def distribution(tmp_path_factory):
    """The distribution with a pass that a page shows, with what pip would know of it."""
    folder = tmp_path_factory.mktemp("distribution")
    write_files(folder, "python")
    command = [sys.executable, "setup.py", "--quiet", "egg_info"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def write_files(folder, language):
    blocks = [block for page in PAGES_TO_RUN for block in read_blocks(page)]
    for block in blocks:
        if block.language == language and block.file:
            (folder / block.file).write_text(block.code, encoding="utf-8")
    assert language != "yaml" or all(block.file for block in blocks if block.language == "yaml")


@pytest.fixture(scope="session")
def readers_folders(tmp_path_factory):
    """Small checkpoints whose latents are 32 pixels wide, so that large pictures have few."""
    folder = tmp_path_factory.mktemp("models")
    text_encoder = {"max_position_embeddings": 77}
    vae = {"block_out_channels": [4] * 6, "layers_per_block": 1, "norm_num_groups": 2}
    vae |= {
        "down_block_types": ["DownEncoderBlock2D"] * 6,
        "up_block_types": ["UpDecoderBlock2D"] * 6,
    }
    found = {}
    for path, published in zip(READERS_FLUX, (FLUX_DEV, FLUX_SCHNELL), strict=True):
        found[path] = folder / Path(path).name
        write_random_checkpoint(found[path], shrink(published, text_encoder=text_encoder, vae=vae))
    found[READERS_SDXL] = folder / "sdxl"
    texts = {"text_encoder": text_encoder, "text_encoder_2": text_encoder}
    small = shrink_sdxl(**texts, unet={"sample_size": 32}, vae=vae)
    write_random_checkpoint(found[READERS_SDXL], small)
    found[READERS_REFINER] = folder / "refiner"
    write_random_checkpoint(found[READERS_REFINER], shrink_refiner(**texts, vae=vae))
    found[READERS_TINY] = folder / "tiny"
    narrow = {f"{side}_block_out_channels": (4,) * 4 for side in ("encoder", "decoder")}
    found[READERS_CONTROLNET] = folder / "controlnet"
    in_the_box = Path(DiffusionConfig.from_preset("shapes").model_path)
    embedding = {"conditioning_embedding_out_channels": [4] * 4}
    write_tiny_controlnet(found[READERS_CONTROLNET], in_the_box, **embedding)
    found[READERS_IP_ADAPTER] = folder / "ip-adapter.safetensors"
    write_tiny_ip_adapter(found[READERS_IP_ADAPTER], in_the_box, "base")
    write_tiny_image_encoder(folder / "image_encoder")
    for seed, path in enumerate(READERS_LORAS):
        found[path] = write_tiny_lora(folder / Path(path).name, in_the_box, seed=seed)
    AutoencoderTiny(**narrow).save_pretrained(found[READERS_TINY])
    return found


@every_page
def test_blocks_are_of_a_kind_that_is_tested(page):
    blocks = read_blocks(page)
    assert {block.language for block in blocks} <= {"python", "bash", "yaml", "text", "csv"}
    # A text block that no block prints would be believed untested: only drawings are, and files.
    texts = [block.code for block in blocks if block.language == "text" and not block.file]
    printed = [block.output for block in blocks if block.output is not None]
    assert [text for text in texts if text not in printed and "──>" not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES_TO_RUN if "python" in {block.language for block in read_blocks(page)}],
    ids=lambda page: page.name,
)
def test_python_blocks_run(page, folder, readers_folders, capsys):
    blocks = [block for block in read_blocks(page) if block.language == "python" and not block.file]
    model = DiffusionConfig.from_preset("shapes").model_path
    names = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        for block in blocks:
            # Only these very folders: the other paths below /models are never opened.
            code = block.code.replace(f'"{READERS_FOLDER}"', repr(model))
            for path, small in readers_folders.items():
                code = code.replace(f'"{path}"', repr(str(small)))
            capsys.readouterr()
            exec(compile(code, page.name, "exec"), names)
            if block.output is not None:
                assert capsys.readouterr().out == block.output


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def page_cache(page, own_folder, monkeypatch):
    """A cache of its own for the page that shows how to empty it; the others share theirs."""
    if page.name == "cache.md":
        monkeypatch.setenv("XDG_CACHE_HOME", str(own_folder))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), list_runs(lambda name: name not in LONG))
def test_commands_run(page, words, folder, page_cache):
    run_command(words)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), list_runs(lambda name: name in LONG))
def test_long_commands_run_on_small_models(page, words, folder, page_cache, small_presets):
    short = list(words)
    if "--runs" in short:
        short[short.index("--runs") + 1] = "1"
    if words[0] == "passes" and "--passes" not in words:
        short += ["--passes", "merge-qkv,fuse-silu"]  # tests/cli/test_cli_passes.py tries all
    run_command(short)


@pytest.mark.slow
@pytest.mark.figures
@pytest.mark.parametrize(("page", "words"), list_runs(lambda name: name in LONG))
def test_long_commands_run(page, words, folder, page_cache):
    run_command(words)


def run_command(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    if "--output" in words:
        assert Path(words[words.index("--output") + 1]).stat().st_size > 0


@pytest.mark.parametrize(
    "page", list(filter(own_commands, PAGES_TO_RUN)), ids=lambda page: page.name
)
def test_commands_parse(page, folder):
    commands = typer.main.get_command(app).commands
    for name, *words in own_commands(page):
        if "--help" in words:
            continue
        given = commands[name].make_context(name, list(words)).params
        if name == "generate":
            options = ("scheduler", "engine", "device", "precision")
            load_config(
                given["model"],
                given["config"],
                tokenizer_path=given["tokenizer"],
                **{key: given[key] for key in options},
            )


@every_page
def test_other_commands_are_there(page):
    for words in read_commands(page):
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        elif words[0] == "python":
            script = (ROOT / words[1]).read_text()
            assert [word for word in words[2:] if word[:2] == "--" and word not in script] == []
        else:
            assert words[0] in ("fastdeploy-diffusion", "pip", ".venv/bin/python"), words


@every_page
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in list_anchors(file), target


def list_anchors(page: Path) -> list[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@every_page
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:tests|examples|fastdeploy_diffusion)/[\w/.]*)`", text):
        assert (ROOT / name).exists(), name


def test_both_readmes_tell_the_same():
    english, chinese = (page.read_text(encoding="utf-8") for page in (ENGLISH, CHINESE))
    assert read_blocks(ENGLISH) == read_blocks(CHINESE)
    for pattern in (r"^(#+) ", r"^(\|)", r"^(\* )", r"`(pip [^`]+)`", r"\((docs/[^)]+)\)"):
        found = (re.findall(pattern, text, re.MULTILINE) for text in (english, chinese))
        assert len(set(map(tuple, found))) == 1, pattern


@pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=lambda page: page.name)
def test_readmes_link_every_page(readme):
    text = readme.read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES[2:]]
    assert [page for page in pages if f"]({page})" not in text] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("generate.md", [field.name for field in fields(GenerationRequest)]),
        ("flux.md", list(FluxRequest.__annotations__)),
        ("sdxl.md", list(SDXLRequest.__annotations__)),
        ("configuration.md", [*DiffusionConfig.option_names(), *RequestDefaults.option_names()]),
        ("configuration.md", [*SCHEDULERS, *ENGINES, *PREDICTION_TYPES]),
        ("engines.md", ENGINES),
        ("engines/paddle.md", PADDLE_GPU_PASSES),
        ("schedulers.md", SCHEDULERS),
        ("schedulers.md", [each.diffusers_name for each in SCHEDULERS.values()]),
    ],
)
def test_tables_name_everything(page, names):
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    table = "\n".join(line for line in lines if line.startswith("|"))
    assert [name for name in names if f"`{name}`" not in table] == []
