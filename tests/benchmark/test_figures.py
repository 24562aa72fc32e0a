"""The figures of a report, from samples whose figures are known by hand."""

import pytest
from benchmark.painted_peer import WORK, make_case

from fastdeploy_diffusion.benchmark.case import OWN, Case
from fastdeploy_diffusion.benchmark.report.table import (
    HEADINGS,
    LATENCY_HEADINGS,
    RESOURCE_HEADINGS,
    UNKNOWN,
    describe_ablation,
    format_seconds,
    list_cells,
    list_gaps,
    list_latencies,
    list_losses,
    list_resources,
    list_unsteady,
    write_ratio,
)
from fastdeploy_diffusion.benchmark.result import Ablation, BenchmarkResult, Missing
from fastdeploy_diffusion.benchmark.row import Judgement, Quality, Row, Samples

OURS = Case(painter=OWN, engine="openvino", device="cpu", precision="fp32", work=WORK)
SAMPLES = Samples(
    import_seconds=0.5,
    load_cold_seconds=30,
    load_warm_seconds=2,
    first_picture_seconds=9,
    pictures=(4.0, 1.0, 3.0, 2.0),
    # Two steps a picture.
    stages={"step": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "vae_decoder": (0.004, 0.002)},
    peak_bytes=3 * 2**30,
    steady_bytes=2**30,
    device_bytes=2**29,
    os_threads=5,
    joules=12.34,
)
QUALITY = Quality(
    psnr=93.25,
    ssim=0.99996,
    relative_errors={"text_encoder": 2e-6, "denoiser": 3e-5, "vae_decoder": None},
    judgement=Judgement(right=193, captions=200),
)
ROW = Row(case=OURS, samples=SAMPLES, quality=QUALITY, settings={})


def make_row(case, pictures, **stages):
    samples = Samples(pictures=pictures, stages=stages)
    quality = Quality(psnr=None, ssim=1, relative_errors={})
    return Row(case=case, samples=samples, quality=quality, settings={})


def make_result(*rows, missing=()):
    return BenchmarkResult.model_construct(rows=rows, missing=missing, runs=7)


def test_every_cell_of_a_row():
    assert dict(zip(HEADINGS, list_cells(ROW), strict=True)) == {
        "case": "openvino fp32",
        "picture p50": "2.5 s ~",
        "p90": "3.7 s",
        "n": "4",
        "step p50": "450 ms",
        # Two pictures at once.
        "pictures/s": "0.8",
        "load cold": "30 s",
        "load warm": "2 s",
        "peak memory": "3.00 GiB",
        "PSNR": "93.2 dB",
        "SSIM": "1.0000",
        "largest error": "3.0e-05",
        "judge": "193 of 200",
    }
    bare = list_cells(make_row(make_case(), ()))
    assert bare == [
        *("painted fp32", UNKNOWN, UNKNOWN, "0", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
        *("identical", "1.0000", UNKNOWN, UNKNOWN),
    ]


def test_every_percentile_of_every_stage():
    picture, step, decoder = (
        dict(zip(LATENCY_HEADINGS, line, strict=True)) for line in list_latencies([ROW])
    )
    assert picture == {
        "case": "openvino fp32",
        "what": "picture",
        "n": "4",
        "min": "1 s",
        "p50": "2.5 s",
        "p90": "3.7 s",
        "p95": "3.85 s",
        "p99": "3.97 s",
        "mean": "2.5 s",
    }
    assert (step["what"], step["n"], step["min"], step["p90"]) == ("step", "8", "100 ms", "730 ms")
    assert (decoder["what"], decoder["p50"], decoder["mean"]) == ("vae decoder", "3 ms", "3 ms")


def test_every_resource():
    (line,) = list_resources([ROW])
    assert dict(zip(RESOURCE_HEADINGS, line, strict=True)) == {
        "case": "openvino fp32",
        "import": "500 ms",
        "load cold": "30 s",
        "load warm": "2 s",
        "first picture": "9 s",
        "peak memory": "3.00 GiB",
        "steady memory": "1.00 GiB",
        "GPU memory": "0.50 GiB",
        "threads": "5",
        "energy": "12.3 J",
    }


def test_steps_are_added_up_picture_by_picture():
    assert SAMPLES.stage_per_picture("step") == pytest.approx((0.3, 0.7, 1.1, 1.5))
    assert SAMPLES.stage_per_picture("vae_decoder") == (0.004, 0.002)
    assert SAMPLES.stage_per_picture("prologue") == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, UNKNOWN), (0.0012345, "1.23 ms"), (0.9994, "999 ms"), (1.0, "1 s"), (61.28, "61.3 s")],
)
def test_three_digits(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(3.2004, "3.200"), (0.1, "0.100"), (0.09876, "0.0988")]
)
def test_ratios_are_told_to_a_thousandth(ratio, text):
    assert write_ratio(ratio) == text


def test_what_is_unsteady_is_named_with_its_spread():
    steady = make_row(make_case(), (9.0, 9.5, 10.0, 10.5, 11.0))
    assert list_unsteady(make_result(ROW, steady, make_row(make_case(), ()))) == [
        "openvino fp32, 24 x 16, batch 2, 2 steps, 1 thread: unsteady, the middle half of its "
        "pictures spans 60% of the median"
    ]


def test_gaps_are_told_with_their_reasons():
    cut = ROW.model_copy(update={"missing": "it crashed"})
    result = make_result(cut, ROW, missing=(Missing(case="cinn fp32", reason="no GPU"),))
    assert list_gaps(result) == [
        "openvino fp32, 24 x 16, batch 2, 2 steps, 1 thread: cut short after 4 of 7 pictures: "
        "it crashed",
        "cinn fp32: no GPU",
    ]


def test_a_loss_is_a_lower_median_than_the_best_of_ours_in_that_precision():
    slow = make_row(OURS.model_copy(update={"engine": "paddle"}), (3.0,) * 3, vae_decoder=(0.1,))
    ours = make_row(OURS, (1.0, 2.0, 9.0), vae_decoder=(0.3,), step=(0.2,))
    half = make_row(OURS.model_copy(update={"precision": "bf16"}), (0.1,) * 3)
    theirs = make_row(make_case(), (1.0, 1.9, 9.0), vae_decoder=(0.2,), step=(0.2,), other=(0.0,))
    about = "painted fp32, 24 x 16, batch 2, 2 steps, 1 thread is faster than ours in"
    assert list_losses(make_result(slow, ours, half, theirs)) == [
        f"{about} the whole picture: 1.9 s, and 2 s on openvino fp32",
    ]
    assert list_losses(make_result(ours, half, theirs))[1] == (
        f"{about} vae decoder: 200 ms, and 300 ms on openvino fp32"
    )
    # In its own precision only, where we have it; and not what takes as long.
    assert list_losses(make_result(half, theirs)) == []
    assert list_losses(make_result(ours, make_row(make_case(), (1.0, 2.0, 2.0)))) == []
    # Of other work nothing is known.
    larger = make_case().model_copy(update={"work": WORK.model_copy(update={"steps": 9})})
    assert list_losses(make_result(ours, make_row(larger, (0.1,)))) == []


def test_what_a_pass_is_worth():
    ablation = Ablation(
        case=OURS,
        component="denoiser",
        passes="merge-qkv",
        relative_error=2e-6,
        before=(2.0, 4.2, 3.0),
        after=(1.0, 2.0, 1.5),
    )
    assert ablation.ratios == (2, 2.1, 2)
    assert describe_ablation(ablation) == (
        "denoiser with merge-qkv is 2.000 times as fast on openvino fp32 (3 pairs, half of them "
        "within 2.000 to 2.050; relative error 2.0e-06): faster"
    )
