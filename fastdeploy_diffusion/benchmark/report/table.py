"""The rows as cells, the same for terminal, Markdown and HTML."""

from fastdeploy_diffusion.benchmark.result import Ablation, BenchmarkResult, Comparison
from fastdeploy_diffusion.benchmark.row import Quality, Row
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
    """Say who was how much faster, in turns, and whether that can be relied on."""
    ratios = summarise(comparison.ratios)
    what = (
        f"{comparison.ours.name} is {write_ratio(ratios.p50)} times as fast as "
        f"{comparison.theirs.name} ({comparison.ours.work}; {_describe_pairs(ratios)})"
    )
    return f"{what}: {judge_ratios(ratios)}" + (
        f"; {comparison.missing}" if comparison.missing else ""
    )


def describe_ablation(ablation: Ablation) -> str:
    """Say what a pass is worth, and whether that can be relied on."""
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
    """Say how the cost of each case grows, if something was swept."""
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
    """Say what pairs show: who is faster, or that they do not agree."""
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
    """Say what was not measured, and why."""
    cut_short = [
        f"{row.case}: cut short after {len(row.samples.pictures)} of {result.runs} pictures: "
        f"{row.missing}"
        for row in result.rows
        if row.missing
    ]
    return cut_short + [f"{each.case}: {each.reason}" for each in result.missing]


def format_seconds(seconds: float | None) -> str:
    """Three digits, in seconds or milliseconds."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def format_steady(summary: Summary | None) -> str:
    """A median, marked where the samples spread too far."""
    if summary is None:
        return UNKNOWN
    return format_seconds(summary.p50) + (" ~" if summary.is_unsteady else "")


def format_bytes(size: int | None) -> str:
    """In GiB."""
    return UNKNOWN if size is None else f"{size / 2**30:.2f} GiB"


def format_psnr(quality: Quality) -> str:
    """In dB."""
    return "identical" if quality.psnr is None else f"{quality.psnr:.1f} dB"


def format_largest_error(quality: Quality) -> str:
    """Of the components."""
    errors = [each for each in quality.relative_errors.values() if each is not None]
    return f"{max(errors):.1e}" if errors else UNKNOWN


def format_judgement(quality: Quality) -> str:
    """Captions that were drawn right."""
    found = quality.judgement
    return f"{found.right} of {found.captions}" if found else UNKNOWN
