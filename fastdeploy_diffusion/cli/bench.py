"""``bench``: speed with quality beside it, on this machine."""

from typing import Annotated

import typer

from fastdeploy_diffusion.cli.errors import explain_errors
from fastdeploy_diffusion.cli.group import CommandGroup
from fastdeploy_diffusion.cli.interruption import INTERRUPTED
from fastdeploy_diffusion.cli.request_options import request_option
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.suggest import list_choices

bench_app = typer.Typer(
    cls=CommandGroup,
    rich_markup_mode=None,
    help="Measure speed, memory and quality here; compare and show what was measured.",
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_LIST = "[,…]"


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE.yaml|PRESET", help="Preset or YAML; options given here win."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A preset, a diffusers folder or a .safetensors file.")
    ] = None,
    random_weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Full size, seeded random weights, for --model: sd15, sd21, sdxl, flux-dev or "
            "flux-schnell.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar=f"NAME{_LIST}", help="Without it: the file's, or every engine that runs here."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, gpu, gpu:N, xpu or xpu:N.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar=f"NAME{_LIST}", help=f"{list_choices(PRECISIONS)}.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar=f"WxH{_LIST}", help="In pixels; the model's own if left out."),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar=f"N{_LIST}", help="Pictures that are drawn at once.")
    ] = "1",
    steps: Annotated[int | None, request_option("num_inference_steps")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads; all by default.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="size|batch|steps|threads",
            help="How cost grows with it; --size and --batch may list the points.",
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed pictures of each case.")] = 3,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Try each pass, too, on our fastest case.")
    ] = False,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar=f"NAME{_LIST}",
            help="In turns with them: diffusers, openvino-genai, onnxruntime, sdcpp.",
        ),
    ] = None,
    peer_precision: Annotated[
        str | None,
        typer.Option(
            metavar=f"NAME{_LIST}", help="Of the peers, as int8,int8-hybrid; ours if left out."
        ),
    ] = None,
    peer_python: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PYTHON", help="The Python that has a peer; may be repeated."),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, help="Seconds that each measured process may take.")
    ] = 3600,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="For the report; new or empty."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure speed, memory and quality on this machine, and write a report.

    Without options: the preset shapes, on every engine that runs here. Each case runs in
    processes of its own. Exit code 1 if nothing could be measured.
    """
    if context.invoked_subcommand is not None:
        return
    with explain_errors(debug):
        from fastdeploy_diffusion.cli.pipeline import require_paddle

        require_paddle()
        from fastdeploy_diffusion.benchmark.report.files import choose_folder, write_report
        from fastdeploy_diffusion.benchmark.report.terminal import format_terminal
        from fastdeploy_diffusion.benchmark.run import run_benchmark
        from fastdeploy_diffusion.cli.bench_plan import BenchOptions, make_plan, split_names
        from fastdeploy_diffusion.cli.interruption import interrupt_on_termination
        from fastdeploy_diffusion.cli.progress import show_progress

        plan = make_plan(
            BenchOptions(
                config=config,
                model=model,
                random_weights=random_weights,
                engines=split_names(engine),
                device=device,
                precisions=split_names(precision),
                size=size,
                batch=batch,
                steps=steps,
                threads=threads,
                sweep=sweep,
                runs=runs,
                ablation=ablation,
                peers=split_names(peers),
                peer_precisions=split_names(peer_precision),
                peer_pythons=peer_python or [],
                time_limit=time_limit,
            )
        )
        folder = choose_folder(output)
        with show_progress("starting") as show, interrupt_on_termination():
            result = run_benchmark(plan, show)
        print(format_terminal(result))
        print(f"\n{write_report(result, folder)}")
    if result.is_interrupted or not result.rows:
        raise typer.Exit(INTERRUPTED if result.is_interrupted else 1)


@bench_app.command()
def show(
    result: Annotated[str, typer.Argument(metavar="RESULT.json|FOLDER")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Also write the report anew here."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what was measured earlier."""
    with explain_errors(debug):
        from pathlib import Path

        from fastdeploy_diffusion.benchmark.report.files import choose_folder, write_report
        from fastdeploy_diffusion.benchmark.report.terminal import format_terminal
        from fastdeploy_diffusion.benchmark.result import read_result

        read = read_result(Path(result))
        print(format_terminal(read))
        if output is not None:
            print(f"\n{write_report(read, choose_folder(output))}")


@bench_app.command()
def page(
    results: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of published reports.")
    ] = "benchmarks/results",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Overwritten.")
    ] = "docs/benchmarks.md",
    debug: Debug = False,
) -> None:
    """Write the page of published runs anew."""
    with explain_errors(debug):
        from pathlib import Path

        from fastdeploy_diffusion.benchmark.report.page import format_page, read_published

        text = format_page(read_published(Path(results)))
        try:
            Path(output).write_text(text, encoding="utf-8")
        except OSError as error:
            from fastdeploy_diffusion.errors import ConfigError

            raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from None
        print(output)


@bench_app.command()
def compare(
    before: Annotated[str, typer.Argument(metavar="A.json")],
    after: Annotated[str, typer.Argument(metavar="B.json")],
    fail_if_slower: Annotated[
        str | None,
        typer.Option(metavar="5%", help="Exit code 1 if a case of B is slower by more than that."),
    ] = None,
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Other machines and settings, too.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare two results, with confidence intervals.

    Cases of both are compared. A case counts as slower if its whole interval lies beyond the limit.
    """
    with explain_errors(debug):
        from pathlib import Path

        from fastdeploy_diffusion.benchmark.compare import (
            compare_results,
            format_differences,
            parse_share,
        )
        from fastdeploy_diffusion.benchmark.result import read_result

        limit = parse_share(fail_if_slower)
        differences = compare_results(
            read_result(Path(before)), read_result(Path(after)), allow_different
        )
        print(format_differences(differences, limit))
    if any(each.is_slower(limit) for each in differences):
        raise typer.Exit(1)
