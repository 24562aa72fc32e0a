"""The command line. A command imports what it needs when it runs, so that ``--help`` is quick."""

import io
import sys
from typing import Annotated, Any

import typer

from fastdeploy_diffusion.cli.bench import bench_app
from fastdeploy_diffusion.cli.cache import cache_app
from fastdeploy_diffusion.cli.convert import convert
from fastdeploy_diffusion.cli.errors import explain_errors
from fastdeploy_diffusion.cli.group import CommandGroup
from fastdeploy_diffusion.cli.json_text import to_json
from fastdeploy_diffusion.cli.request_options import (
    request_option,
    take_seeds,
    takes_request_options,
)
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.registry import ENGINES
from fastdeploy_diffusion.scheduler_names import SCHEDULERS
from fastdeploy_diffusion.suggest import list_choices

app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than --help should take
)

app.add_typer(cache_app, name="cache")
app.add_typer(bench_app, name="bench")
app.command()(convert)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
# Options that several commands share. `generate` has longer help for some.
Model = Annotated[
    str | None, typer.Option(help="A preset, a diffusers folder, a bundle or a .safetensors file.")
]
ConfigFile = Annotated[
    str | None,
    typer.Option(metavar="FILE.yaml", help="Configuration file; options given here win."),
]
Height = Annotated[int | None, request_option("height")]
Width = Annotated[int | None, request_option("width")]
EngineName = Annotated[str | None, typer.Option(help="As for `generate`.")]
DeviceName = Annotated[str | None, typer.Option(help="cpu, gpu, gpu:N, xpu or xpu:N.")]
Precision = Annotated[str | None, typer.Option(help=f"{list_choices(('auto', *PRECISIONS))}.")]
Sizes = Annotated[
    str | None,
    typer.Option(metavar="WxH[,WxH]...", help="Sizes in pixels; the model's own if left out."),
]
Chunks = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N]...",
        help="Chunks of 75 tokens of long prompts (`generate --prompt-syntax weighted`).",
    ),
]
Shown = Annotated[
    str | None,
    typer.Option(
        "--ip-images",
        metavar="N[,N]...",
        help="Numbers of pictures for each IP-Adapter; 1 if left out.",
    ),
]
Tokenizer = Annotated[str | None, typer.Option(metavar="FOLDER", help="As for `generate`.")]
ControlNet = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|FILE",
        help="A ControlNet for --control: a diffusers folder, or a .safetensors file. Several, "
        "and what each runs on, are for a configuration file.",
    ),
]
IPAdapter = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="An IP-Adapter for --ip-image: a .safetensors file. Several, and what each runs "
        "on, are for a configuration file.",
    ),
]
IPEncoder = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="The vision tower of --ip-adapter; the folder image_encoder beside its file if "
        "left out.",
    ),
]


def run() -> None:
    """Run this process's command line, and end the process with the command's exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that the terminal cannot show must not fail a generation that succeeded.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="fastdeploy-diffusion")


def _print_version(wanted: bool) -> None:
    if wanted:
        from fastdeploy_diffusion import __version__

        print(f"fastdeploy-diffusion {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Text-to-image diffusion on PaddlePaddle: built, measured and proven for this machine."""


@app.command()
@takes_request_options
def generate(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to draw.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A preset (see `info`), a diffusers folder, a bundle or a .safetensors file. A "
            "preset's name means the preset; for a folder of that name write ./NAME. Without "
            "--model and --config: the preset shapes.",
        ),
    ] = None,
    config: ConfigFile = None,
    *,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw the rows of a file: .txt with a prompt a line, or .csv or .jsonl with "
            "settings, named as in Python. Options given here are for rows that leave them out. "
            "Run the same command again to draw the pictures whose files are missing.",
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help=f"{list_choices(SCHEDULERS)}; or as "
            "diffusers or the WebUI call it, such as 'DPM++ 2M Karras'."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"{list_choices(('auto', *ENGINES))}; `info` says "
            "which run here. A section of the configuration file still decides for its own network."
        ),
    ] = None,
    device: DeviceName = None,
    precision: Precision = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Tokenizer of a .safetensors file, which carries no vocabulary; for SDXL and "
            "Flux, the folder that holds tokenizer and tokenizer_2.",
        ),
    ] = None,
    controlnet: ControlNet = None,
    refiner: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="SDXL's refiner, which draws the last steps: a diffusers folder, or a "
            ".safetensors file.",
        ),
    ] = None,
    ip_adapter: IPAdapter = None,
    ip_encoder: IPEncoder = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:STRENGTH]",
            help="A LoRA, LoCon, LoHa, LoKr or DoRA of the model; give it again for another one.",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="A .png, .webp or .jpg file, which must not exist yet, or a folder, new or not, "
            "where the next free name of output.png, output-1.png … is taken. Several pictures get "
            "-1, -2 ….",
        ),
    ] = ".",
    grid: Annotated[
        bool,
        typer.Option("--grid", help="Also write one picture of all, in rows, as NAME-grid."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
    **settings: Any,
) -> None:
    """Draw pictures of a prompt.

    They are files with the settings that made them as metadata.
    """
    with explain_errors(debug) as notices:
        from fastdeploy_diffusion.cli.added_networks import read_added, read_loras
        from fastdeploy_diffusion.cli.draw import draw
        from fastdeploy_diffusion.cli.model import load_config
        from fastdeploy_diffusion.cli.output import OutputTarget, PictureFiles
        from fastdeploy_diffusion.cli.prompt_rows import draw_rows, format_rows, require_prompt
        from fastdeploy_diffusion.cli.result import format_json, format_text

        target = OutputTarget.parse(output, overwrite=overwrite)
        images = take_seeds(settings, images)
        if prompts is None:
            require_prompt(prompt)
            target.check(images, with_grid=grid)
        choice = {"engine": engine, "device": device, "precision": precision}
        own = {
            "tokenizer_path": tokenizer,
            "refiner": refiner,
            "adapters": read_loras(lora),
            **read_added(controlnet, ip_adapter, ip_encoder),
        }
        options: dict[str, Any] = {**choice, "scheduler": scheduler, **own}
        chosen = load_config(model, config, **options)
        if prompts is not None:
            defaults = {**settings, "prompt": prompt, "num_images_per_prompt": images}
            rows = draw_rows(chosen, prompts, defaults, target, with_grid=grid)
            print(format_rows(rows, notices if as_json else None))
            return
        assert prompt is not None  # as it was required
        files = PictureFiles(target, images)
        drawing = draw(chosen, prompt, settings, files, with_grid=grid)
        print(
            format_json(drawing, notices, files.grid)
            if as_json
            else format_text(drawing, files.grid)
        )


Encoder = Annotated[
    bool, typer.Option("--encoder", help="With the VAE's encoder, for requests with pictures.")
]


@app.command()
def build(
    model: Model = None,
    config: ConfigFile = None,
    size: Sizes = None,
    chunks: Chunks = None,
    ip_images: Shown = None,
    engine: EngineName = None,
    device: DeviceName = None,
    precision: Precision = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="smNN",
            help="GPU architecture to build for, as sm86, on a machine with or without a GPU: "
            "--engine tensorrt --device gpu.",
        ),
    ] = None,
    encoder: Encoder = False,
    tokenizer: Tokenizer = None,
    controlnet: ControlNet = None,
    ip_adapter: IPAdapter = None,
    ip_encoder: IPEncoder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build and prove a pipeline, so that later starts find it ready (see `cache`)."""
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.added_networks import read_added
        from fastdeploy_diffusion.cli.build import (
            build_all,
            format_builds,
            parse_chunks,
            parse_shown,
            parse_sizes,
        )
        from fastdeploy_diffusion.cli.model import load_config

        sizes, counts, shown = parse_sizes(size), parse_chunks(chunks), parse_shown(ip_images)
        choice = {"engine": engine, "device": device, "precision": precision, "target": target}
        own = read_added(controlnet, ip_adapter, ip_encoder)
        read = load_config(model, config, tokenizer_path=tokenizer, **choice, **own)
        print(format_builds(build_all(read, sizes, counts, shown, encoder=encoder), as_json))


@app.command()
def bundle(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder.")],
    model: Model = None,
    config: ConfigFile = None,
    size: Sizes = None,
    chunks: Chunks = None,
    ip_images: Shown = None,
    engine: EngineName = None,
    device: DeviceName = None,
    precision: Precision = None,
    encoder: Encoder = False,
    tokenizer: Tokenizer = None,
    controlnet: ControlNet = None,
    ip_adapter: IPAdapter = None,
    ip_encoder: IPEncoder = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a folder that draws without Paddle: graphs, weights, tokenizers and proofs.

    Copy it to a machine that has the engine, and give it there as --model.
    """
    with explain_errors(debug):
        from pathlib import Path

        from fastdeploy_diffusion.cli.added_networks import read_added
        from fastdeploy_diffusion.cli.build import parse_chunks, parse_shown, parse_sizes
        from fastdeploy_diffusion.cli.bundle import format_bundle, make_bundle
        from fastdeploy_diffusion.cli.model import load_config

        folder = Path(output).expanduser()
        sizes, counts, shown = parse_sizes(size), parse_chunks(chunks), parse_shown(ip_images)
        choice = {"engine": engine, "device": device, "precision": precision}
        own = read_added(controlnet, ip_adapter, ip_encoder)
        chosen = load_config(model, config, tokenizer_path=tokenizer, **choice, **own)
        made = make_bundle(chosen, sizes, folder, counts, shown, encoder=encoder)
        print(format_bundle(folder, made, as_json))


@app.command()
def quantize(
    model: Model = None,
    config: ConfigFile = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="A new page with the table, and pictures of held-out prompts in pairs.",
        ),
    ] = None,
    engine: EngineName = None,
    device: DeviceName = None,
    precision: Annotated[
        str | None, typer.Option(help="int8 or int8-weights; int8 if left out everywhere.")
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Least PSNR to float32, as int8_quality in the file."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE.txt", help="Prompts to calibrate with, one a line."),
    ] = None,
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Calibrate int8 by the model's own pictures, and show what it costs, block by block."""
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.quantize import (
            check_page,
            format_quantization,
            load_int8,
            quantize_all,
            write_page,
        )

        page = check_page(output)
        options = {
            "engine": engine,
            "device": device,
            "int8_quality": quality,
            "calibration_prompts": prompts,
            "tokenizer_path": tokenizer,
        }
        report, pairs = quantize_all(load_int8(model, config, precision, **options), page)
        if page is not None:
            write_page(page, report, pairs)
        print(format_quantization(report, as_json))


@app.command()
def passes(
    model: Model = None,
    config: ConfigFile = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--passes",
            metavar="NAME[,NAME]...",
            help="Which to try; all there are if left out here and in the file.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each component with and without each pass.")
    ] = False,
    engine: EngineName = None,
    device: DeviceName = None,
    precision: Precision = None,
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Try each pass alone: how often it fires, its error on the engine, its speed.

    Exit code 1 if one cannot be used.
    """
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.model import load_config
        from fastdeploy_diffusion.cli.passes import (
            format_json,
            format_table,
            parse_passes,
            try_passes,
        )

        choice = {"engine": engine, "device": device, "precision": precision}
        options = {**choice, "passes": parse_passes(only), "tokenizer_path": tokenizer}
        report, trials = try_passes(load_config(model, config, **options), measure)
        print(format_json(trials, measure) if as_json else format_table(report, trials))
    if any(trial.problem for trial in trials):
        raise typer.Exit(1)


@app.command()
def tune(
    model: Model = None,
    config: ConfigFile = None,
    height: Height = None,
    width: Width = None,
    device: DeviceName = None,
    tokenizer: Tokenizer = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs, after one that is not.")] = 5,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every engine and precision here, and keep what is fastest for later runs."""
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.model import load_config
        from fastdeploy_diffusion.cli.tune import format_plans, tune_all

        options = {"engine": "auto", "device": device, "tokenizer_path": tokenizer}
        tuned = tune_all(load_config(model, config, **options), width, height, runs)
        print(format_plans(*tuned, as_json))


@app.command()
def explain(
    model: Model = None,
    config: ConfigFile = None,
    height: Height = None,
    width: Width = None,
    engine: EngineName = None,
    device: DeviceName = None,
    precision: Precision = None,
    tokenizer: Tokenizer = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show each component's engine and proof, and why others were not taken."""
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.model import load_config
        from fastdeploy_diffusion.cli.tune import explain_all, format_explanation

        choice = {"engine": engine, "device": device, "precision": precision}
        read = load_config(model, config, tokenizer_path=tokenizer, **choice)
        report, plans = explain_all(read, width, height)
        print(format_explanation(report, plans, as_json))


@app.command()
def info(as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what this machine can run.

    Its processor and memory, the software on it, each engine on each device or why not, presets.
    """
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.info import collect_info, format_info

        found = collect_info()
        print(to_json(found) if as_json else format_info(found))
