"""Cells and sentences of a report: the same for terminal, Markdown and HTML."""

from collections.abc import Sequence

from fastdeploy_diffusion.benchmark.result import Ablation, BenchmarkResult, Comparison
from fastdeploy_diffusion.benchmark.roofline.roofline import Roofline
from fastdeploy_diffusion.benchmark.row import STAGES, Quality, Row
from fastdeploy_diffusion.benchmark.summary import Summary, summarise
from fastdeploy_diffusion.benchmark.sweep import SWEEPS, list_growths

HEADINGS = (
    "case",
    "picture p50",
    "p90",
    "n",
    "step p50",
    "pictures/s",
    "load cold",
    "load warm",
    "peak memory",
    "PSNR",
    "SSIM",
    "largest error",
    "judge",
)
UNKNOWN = "—"
LATENCY_HEADINGS = ("case", "what", "n", "min", "p50", "p90", "p95", "p99", "mean")
RESOURCE_HEADINGS = (
    *("case", "import", "load cold", "load warm", "first picture", "peak memory"),
    *("steady memory", "GPU memory", "threads", "energy"),
)
ROOFLINE_HEADINGS = (
    *("component", "on", "p50", "GFLOP", "GFLOP plain", "GB", "GFLOP/s", "limit", "of it"),
    *("peak, products", "peak, convolutions", "peak, copies"),
)
OPERATOR_HEADINGS = ("component", "operator", "kind", "time", "share")
_KINDS = 3


def list_works(result: BenchmarkResult) -> list[str]:
    """Name every piece of work once, in order."""
    return list(dict.fromkeys(str(row.case.work) for row in result.rows))


def list_cells(row: Row) -> list[str]:
    """One row's cells under ``HEADINGS``."""
    samples = row.samples
    pictures = summarise(samples.pictures) if samples.pictures else None
    steps = summarise(samples.stages["step"]) if samples.stages.get("step") else None
    each = row.case.work.batch
    return [
        row.case.name + ("*" if row.missing else ""),
        format_steady(pictures),
        format_seconds(pictures.p90 if pictures else None),
        str(len(samples.pictures)),
        format_seconds(steps.p50 if steps else None),
        f"{each / pictures.p50:.3g}" if pictures else UNKNOWN,
        format_seconds(samples.load_cold_seconds),
        format_seconds(samples.load_warm_seconds),
        format_bytes(samples.peak_bytes),
        format_psnr(row.quality),
        f"{row.quality.ssim:.4f}",
        format_largest_error(row.quality),
        format_judgement(row.quality),
    ]


def describe_comparison(comparison: Comparison) -> str:
    """Write the ratio of two cases in turns, and whether it can be relied on."""
    ratios = summarise(comparison.ratios)
    what = (
        f"{comparison.ours.name} is {write_ratio(ratios.p50)} times as fast as "
        f"{comparison.theirs.name} ({comparison.ours.work}; {_describe_pairs(ratios)})"
    )
    return f"{what}: {judge_ratios(ratios)}" + (
        f"; {comparison.missing}" if comparison.missing else ""
    )


def describe_ablation(ablation: Ablation) -> str:
    """Write the ratio with a pass to without, and whether it can be relied on."""
    ratios = summarise(ablation.ratios)
    return (
        f"{ablation.component} with {ablation.passes} is {write_ratio(ratios.p50)} times as fast "
        f"on {ablation.case.name} ({_describe_pairs(ratios)}; relative error "
        f"{ablation.relative_error or 0:.1e}): {judge_ratios(ratios)}"
    )


def write_ratio(ratio: float) -> str:
    """Write how many times as fast something is, to a thousandth or three digits."""
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.3g}"


def _describe_pairs(ratios: Summary) -> str:
    if ratios.count == 1:
        return "1 pair"
    low, high = write_ratio(ratios.p25), write_ratio(ratios.p75)
    return f"{ratios.count} pairs, half of them within {low} to {high}"


def list_exponents(result: BenchmarkResult) -> list[str]:
    """Write the exponent of each case's cost, if something was swept."""
    if result.sweep is None:
        return []
    words, _ = SWEEPS[result.sweep]
    return [
        f"{each.name}: time grows as {words} ^ {each.exponent:.2f}"
        + ("" if each.memory_exponent is None else f", memory as ^ {each.memory_exponent:.2f}")
        + f" ({len(each.places)} points, {each.places[0]} to {each.places[-1]})"
        for each in list_growths(result.rows, result.sweep)
        if each.exponent is not None
    ]


def judge_ratios(ratios: Summary) -> str:
    """Judge the ratios of pairs: faster, slower, no difference, or too unsteady."""
    if ratios.count == 1:
        return "one pair shows little"
    if ratios.is_unsteady:
        return "the pairs differ too much to rely on it"
    if ratios.p25 > 1:
        return "faster"
    return "slower" if ratios.p75 < 1 else "no difference shown"


def list_unsteady(result: BenchmarkResult) -> list[str]:
    """Name the rows whose pictures took too different times to rely on."""
    found = []
    for row in result.rows:
        summary = summarise(row.samples.pictures) if row.samples.pictures else None
        if summary and summary.is_unsteady:
            found.append(
                f"{row.case}: unsteady, the middle half of its pictures spans {summary.spread:.0%} "
                "of the median"
            )
    return found


def list_gaps(result: BenchmarkResult) -> list[str]:
    """List what was not measured, with the reasons."""
    cut_short = [
        f"{row.case}: cut short after {len(row.samples.pictures)} of {result.runs} pictures: "
        f"{row.missing}"
        for row in result.rows
        if row.missing
    ]
    return cut_short + [f"{each.case}: {each.reason}" for each in result.missing]


def format_seconds(seconds: float | None) -> str:
    """Write seconds or milliseconds with three digits."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def format_steady(summary: Summary | None) -> str:
    """Write a median, marked where the samples spread too far."""
    if summary is None:
        return UNKNOWN
    return format_seconds(summary.p50) + (" ~" if summary.is_unsteady else "")


def format_bytes(size: int | None) -> str:
    """Write bytes in GiB."""
    return UNKNOWN if size is None else f"{size / 2**30:.2f} GiB"


def format_psnr(quality: Quality) -> str:
    """Write a PSNR in dB."""
    return "identical" if quality.psnr is None else f"{quality.psnr:.1f} dB"


def format_largest_error(quality: Quality) -> str:
    """Write the largest relative error of the components."""
    errors = [each for each in quality.relative_errors.values() if each is not None]
    return f"{max(errors):.1e}" if errors else UNKNOWN


def format_judgement(quality: Quality) -> str:
    """Write how many captions were drawn right."""
    found = quality.judgement
    return f"{found.right} of {found.captions}" if found else UNKNOWN


def list_latencies(rows: Sequence[Row]) -> list[list[str]]:
    """Sum up whole pictures and each stage: cells under ``LATENCY_HEADINGS``."""
    lines = []
    for row in rows:
        figures = {"picture": row.samples.pictures}
        figures |= {stage: row.samples.stages.get(stage, ()) for stage in STAGES}
        for what, samples in figures.items():
            if samples:
                found = summarise(samples)
                points = (found.minimum, found.p50, found.p90, found.p95, found.p99, found.mean)
                about = [row.case.name, what.replace("_", " "), str(found.count)]
                lines.append([*about, *map(format_seconds, points)])
    return lines


def list_resources(rows: Sequence[Row]) -> list[list[str]]:
    """List starts, memory, threads and energy: cells under ``RESOURCE_HEADINGS``."""
    return [
        [
            row.case.name,
            format_seconds(row.samples.import_seconds),
            format_seconds(row.samples.load_cold_seconds),
            format_seconds(row.samples.load_warm_seconds),
            format_seconds(row.samples.first_picture_seconds),
            format_bytes(row.samples.peak_bytes),
            format_bytes(row.samples.steady_bytes),
            format_bytes(row.samples.device_bytes),
            str(row.samples.os_threads or UNKNOWN),
            UNKNOWN if row.samples.joules is None else f"{row.samples.joules:.3g} J",
        ]
        for row in rows
    ]


def list_rooflines(rooflines: Sequence[Roofline]) -> list[list[str]]:
    """Set each component against its limit: cells under ``ROOFLINE_HEADINGS``."""
    return [
        [
            each.component,
            f"{each.engine} {each.precision}",
            format_seconds(each.p50),
            f"{each.flops / 1e9:.3g}",
            f"{each.plain_flops / 1e9:.3g}",
            f"{each.moved_bytes / 1e9:.3g}",
            f"{each.flops / each.p50 / 1e9:.3g}",
            format_seconds(each.limit),
            f"{each.share:.0%}",
            f"{each.peaks.matrix_product / 1e9:.3g} GFLOP/s",
            f"{each.peaks.convolution / 1e9:.3g} GFLOP/s",
            f"{each.peaks.bandwidth / 1e9:.3g} GB/s" if each.peaks.bandwidth else UNKNOWN,
        ]
        for each in rooflines
    ]


def list_operators(rooflines: Sequence[Roofline]) -> list[list[str]]:
    """Name the slowest operators: cells under ``OPERATOR_HEADINGS``."""
    return [
        [
            each.component,
            operator.name,
            operator.kind,
            format_seconds(operator.seconds),
            f"{operator.seconds / sum(each.kinds.values()):.1%}",
        ]
        for each in rooflines
        for operator in each.operators
    ]


def describe_roofline(roofline: Roofline) -> str:
    """Describe a component's share of the roofline limit, and its slowest operators."""
    whole = sum(roofline.kinds.values())
    kinds = [f"{name} {each / whole:.0%}" for name, each in roofline.kinds.items()][:_KINDS]
    return (
        f"{roofline.component} on {roofline.engine} {roofline.precision}, "
        f"{roofline.case.work}: {roofline.share:.0%} of the limit "
        f"({format_seconds(roofline.p50)} a run, {format_seconds(roofline.limit)} at the peaks); "
        + (f"most time in {', '.join(kinds)}" if kinds else f"operators: {roofline.unprofiled}")
    )


def list_losses(result: BenchmarkResult) -> list[str]:
    """Name every stage, and every whole picture, of which a peer's median is the lower one.

    A peer is set against our fastest case of the same work and precision, stage by stage; where we
    have none in that precision, against our fastest of all.
    """
    rows = [row for row in result.rows if row.samples.pictures]
    lines = []
    for theirs in (row for row in rows if not row.case.is_own):
        ours = [row for row in rows if row.case.is_own and row.case.work == theirs.case.work]
        same = [row for row in ours if row.case.precision == theirs.case.precision]
        for figure, seconds in _list_medians(theirs).items():
            found = {row.case.name: _list_medians(row).get(figure) for row in same or ours}
            known = {name: each for name, each in found.items() if each is not None}
            if known and seconds < min(known.values()):
                name = min(known, key=lambda name: known[name])
                lines.append(
                    f"{theirs.case} is faster than ours in {figure.replace('_', ' ')}: "
                    f"{format_seconds(seconds)}, and {format_seconds(known[name])} on {name}"
                )
    return lines


def _list_medians(row: Row) -> dict[str, float]:
    figures = {"the whole picture": row.samples.pictures, **row.samples.stages}
    return {
        name: summarise(samples).p50
        for name, samples in figures.items()
        if samples and name in ("the whole picture", *STAGES)
    }


def list_facts(result: BenchmarkResult) -> list[list[str]]:
    """Name the machine, the versions and the settings."""
    machine = result.machine
    memory = machine.get("memory") or {}
    gpus = [", ".join(gpu.values()) for gpu in machine.get("gpus", ())]
    facts = {
        "started": result.started,
        "CPU": machine.get("cpu") or "unknown",
        "instructions": " ".join(machine.get("cpu_flags") or ["unknown"]),
        "cores": f"{machine.get('usable_cores')} usable of {machine.get('cores')}",
        "memory": f"{memory['total'] / 2**30:.1f} GiB" if memory else "unknown",
        "GPU": "; ".join(gpus) or "none",
        "system": machine.get("system", "unknown"),
        "Python": result.python,
        "packages": ", ".join(f"{name} {found}" for name, found in result.packages.items()),
        "source": result.git_revision or "no checkout",
        "model": ", random weights: ".join(
            filter(None, (result.model.name, result.model.random_weights))
        ),
        "weights, sha256": result.model.digest,
        "configuration, sha256": result.config_digest,
    }
    for row in result.rows:
        case = row.case
        if not case.is_own:
            settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
            facts[f"{case.name}, {case.work}"] = settings
        elif differs := [
            f"{each['name']} on {each['engine']} in {each['precision']}"
            for each in row.settings.get("components", ())
            if (each["engine"], each["precision"]) != (case.engine, case.precision)
        ]:
            facts[f"{case.name}, {case.work}"] = "; ".join(differs)
    return [[name, value] for name, value in facts.items()]
