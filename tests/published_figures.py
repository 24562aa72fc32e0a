"""Where each figure of the documentation comes from: no figure is typed without a source.

A phrase is text of the page, line breaks as spaces, around one figure or several. Two pages have
none: docs/benchmarks.md, which is generated, and the Chinese README, which has the English figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from figure_values import (
    FLOAT32,
    MIB,
    billions,
    compare_medians,
    find_row,
    gib,
    lowest_psnr,
    middle_half,
    peak_gib,
    summarise_turns,
    unet_gib,
)

from fastdeploy_diffusion.benchmark.summary import WIDEST_SPREAD
from fastdeploy_diffusion.compiler import int8_effort, int8_search, reference_files
from fastdeploy_diffusion.engines.onnxruntime import ONNXRuntimeEngine
from fastdeploy_diffusion.engines.openvino import OpenVINOEngine
from fastdeploy_diffusion.engines.paddle import PaddleEngine
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.session_pool import KEPT_BYTES

_HALF = "sd15-avx512-bf16"  # the published run in half precision and int8
_GENAI_INT8 = ("int8", "int8-hybrid")


@dataclass(frozen=True)
class Asserted:
    """A test asserts it.

    Args:
        test: As ``file::function``, the file below ``tests``.
        words: What of the file asserts it.
        where: The file with the words, below ``tests``, if it is another one.
    """

    test: str
    words: str
    where: str | None = None


@dataclass(frozen=True)
class Computed:
    """It follows from published results, configs or constants of the code.

    Args:
        compute: Gives all numbers of the phrase, in order.
    """

    compute: Callable[[], float | Sequence[float]]


@dataclass(frozen=True)
class Dated:
    """It was seen at a commit, which the page names, and is not measured again by any file."""

    commit: str


@dataclass(frozen=True)
class Chosen:
    """It is no finding: a setting, a size of somebody else's, a limit of arithmetic."""

    why: str


Source = Asserted | Computed | Dated | Chosen

JUDGED = "test_shapes_model.py::test_as_many_pictures_are_right_as_published"
SHAPES_JUDGED = Asserted(JUDGED, '"shapes": (96, 97, 99)')
FLUX_SHAPES_JUDGED = Asserted(JUDGED, '"flux-shapes": (98, 97, 98)')
PLACED = Asserted(
    "test_shapes_model.py::test_as_many_objects_are_in_their_places_as_published",
    "PLACED, PLACED_WITHOUT = (100, 88, 88), (30, 4, 95)",
)
SD_PARITY = Asserted("pipelines/test_sd_parity.py::test_requests", "LEAST = 120")
SDXL_PARITY = Asserted("pipelines/test_sdxl_parity.py::test_requests", "LEAST = 120")
FLUX_PARITY = Asserted("pipelines/test_flux_parity.py::test_requests", "LEAST = 120")
MASKS_PARITY = Asserted(
    "pipelines/test_inpainting_parity.py::test_pictures_are_those_of_diffusers",
    "LEAST, LEAST_8_BIT = 100, 60",
)
PICTURES_PARITY = Asserted(
    "pipelines/test_image_to_image_parity.py::test_pictures_are_those_of_diffusers", "LEAST = 100"
)
REFINER_PARITY = Asserted("pipelines/test_refiner_parity.py::test_base_and_refiner", "LEAST = 100")
SIZE = Asserted("test_shapes_model.py::test_the_folder_is_small_and_draws_at_128", "<= 16e6")
BOX_HALF = "test_the_model_in_the_box_draws_the_same_picture_in_half_precision"
HIRES_PARITY = "pipelines/test_hires_parity.py::test_pictures_are_those_of_diffusers"
SETTING = Chosen("a setting")
WEIGHT_RULE = Chosen("a rule of the syntax of prompts")

FIGURES: dict[str, dict[str, Source]] = {
    "README.md": {
        "`shapes` (Stable Diffusion) gets 96.5 %": SHAPES_JUDGED,
        "`flux-shapes` (Flux) 97.5 %": FLUX_SHAPES_JUDGED,
        "the pictures of diffusers to 120 dB and more": SDXL_PARITY,
        "on 100 % of 100 edge maps, and draws it as the caption says on 88 %": PLACED,
        "the pictures of diffusers to 100 dB and more": MASKS_PARITY,
        "ask for a PSNR of at least 120 dB": SD_PARITY,
        "relative error at most 2e-5": Asserted(
            "models/test_unet.py::test_parity",
            "LARGEST_ERROR = 2e-5",
            "models/reference_weights.py",
        ),
        "2e-4 for Flux": Asserted("models/test_flux.py::test_parity", "largest = 2e-4"),
        "3.06 to 3.50 times as fast as diffusers on torch (the middle half of 9": Computed(
            lambda: (*middle_half("shapes", "diffusers")[1:], middle_half("shapes", "diffusers")[0])
        ),
        "`onnxruntime` 1.5 times": Computed(
            lambda: compare_medians("shapes", "onnxruntime", "diffusers")
        ),
        "`paddle` 0.96 times": Computed(lambda: compare_medians("shapes", "paddle", "diffusers")),
        "to 88 dB and more": Computed(lambda: lowest_psnr("shapes")),
        "1.7 times as fast as diffusers": Computed(
            lambda: summarise_turns("sd15", "diffusers").p50
        ),
        "1.3 times as fast as openvino-genai": Computed(
            lambda: summarise_turns("sd15", "openvino-genai").p50
        ),
        "7.2 times as fast": Computed(lambda: summarise_turns("sd15", "sdcpp").p50),
        "1.19 times as long with openvino-genai": Computed(
            lambda: summarise_turns(_HALF, "openvino-genai", "bf16").p50
        ),
        "in int8, 1.60 times with its W8A8 and 1.78 times": Computed(
            lambda: [summarise_turns(_HALF, "openvino-genai", each).p50 for each in _GENAI_INT8]
        ),
        "to float32 is 21 dB, that of the peers 18 dB": Computed(
            lambda: (
                find_row(_HALF, "openvino", "int8").quality.psnr,
                *{
                    round(find_row(_HALF, "openvino-genai", each).quality.psnr)
                    for each in _GENAI_INT8
                },
            )
        ),
        "8.9 GiB where ours took 15.2 GiB": Computed(
            lambda: (peak_gib("sd15", "openvino-genai"), peak_gib("sd15", "openvino"))
        ),
    },
    "docs/architecture.md": {
        "relative error at most 1e-5": Chosen("a rule for new passes"),
    },
    "docs/benchmark.md": {
        "more than 10 % of the median": Computed(lambda: 100 * WIDEST_SPREAD),
        "more than 100 %": Chosen("a limit of arithmetic"),
        "4.0 GiB for `sd": Computed(lambda: gib("sd15")),
        "4.8 GiB for `sd": Computed(lambda: gib("sd21")),
        "12.9 GiB for `sdxl`": Computed(lambda: gib("sdxl")),
        "62.8 GiB for `flux-dev`": Computed(lambda: gib("flux-dev")),
    },
    "docs/configuration.md": {
        "as `sm86` for 8.6": Chosen("an architecture of GPUs"),
    },
    "docs/engines.md": {
        "must be at most 1e-4": Computed(lambda: PRECISIONS["fp32"].criterion.limit),
    },
    "docs/cache.md": {
        "of 4 KiB and more": Chosen("the size of a page of memory"),
        "At most 512 MiB": Computed(lambda: reference_files.LIMIT / MIB),
    },
    "docs/native-attention.md": {
        "took 4.53 s without and 3.15 s with": Dated("b1fe1c2"),
        "2.67 s and 1.88 s: 1.44 and 1.42 times as fast": Dated("b1fe1c2"),
        "the medians were 1.17 and 1.42": Dated("b1fe1c2"),
        "| SD, 4096 tokens, heads of 40 | 1.17 × | 1.13 × |": Dated("1b8b0e9"),
        "| SD, 1024 tokens, heads of 80 | 1.11 × | 1.08 × |": Dated("1b8b0e9"),
        "| SD, 256 tokens, heads of 160 | 1.08 × | 1.14 × |": Dated("1b8b0e9"),
        "| SD, 4096 tokens to a prompt of 77, heads of 40 | 0.83 × | 0.82 × |": Dated("1b8b0e9"),
        "| SDXL, 2048 tokens to 4096, heads of 64 | 1.14 × | 1.11 × |": Dated("1b8b0e9"),
        "| Flux, 1536 tokens to 4608, heads of 128 | 1.09 × | 1.07 × |": Dated("1b8b0e9"),
        "| VAE, 512 pixels to 4096, one head of 512 | 1.21 × | 1.41 × |": Dated("1b8b0e9"),
        "| CLIP, 77 tokens, heads of 64 | 1.12 × | 1.04 × |": Dated("1b8b0e9"),
        "16.33 s without and 15.73 s with the pass, 1.04 times": Dated("1b8b0e9"),
        "19.65 s and 19.24 s, 1.02 times": Dated("1b8b0e9"),
    },
    "docs/engines/openvino.md": {
        "within 1e-5 of the largest": Asserted(
            "engines/test_openvino_linears.py::test_large_layers_leave_mlas_and_keep_their_numbers",
            "atol=1e-5",
        ),
        "| 65.3 | 99.8 (0.24 %) | 33.6 (1.25 %) | 40.6 (0.93 %) |": Dated("e01b869"),
        "| 27.2 | 48.4 (0.24 %) | 13.7 (1.30 %) | 17.1 (1.00 %) |": Dated("e01b869"),
        "| 51.2 | 87.8 (0.23 %) | 21.3 (1.28 %) | 26.6 (0.96 %) |": Dated("e01b869"),
        "| 44.6 | 84.8 (0.23 %) | 14.0 (1.30 %) | 18.3 (1.00 %) |": Dated("e01b869"),
        "had a peak of 1.5 and 1.7 GiB so in two tries (1.8 GiB with a run of two rows)": Dated(
            "fb5f68c"
        ),
        "and 5.9 GiB in float32": Dated("62086eb"),
        "make 5.2 GiB of weights": Dated("fb5f68c"),
    },
    "docs/engines/tensorrt.md": {
        "had 3.46 GB": Dated("16bc8b6"),
        "took 12.3 GB of memory": Dated("16bc8b6"),
        "1.28 times as large": Dated("c801c26"),
    },
    "docs/flux.md": {
        "120 dB at least": FLUX_PARITY,
        "a guidance scale of 3.5": SETTING,
        "| transformer | 11.9 billion | 22.2 GiB | 44.3 GiB |": Computed(
            lambda: (
                billions("flux-dev", "transformer"),
                gib("flux-dev", "transformer", width=2),
                gib("flux-dev", "transformer"),
            )
        ),
        "4.8 billion | 8.9 GiB | 17.7 GiB |": Computed(
            lambda: (
                billions("flux-dev", "text_encoder_2"),
                gib("flux-dev", "text_encoder_2", width=2),
                gib("flux-dev", "text_encoder_2"),
            )
        ),
        "| CLIP and autoencoder | 0.2 billion | 0.4 GiB | 0.8 GiB |": Computed(
            lambda: (
                billions("flux-dev", "text_encoder", "vae"),
                gib("flux-dev", "text_encoder", "vae", width=2),
                gib("flux-dev", "text_encoder", "vae"),
            )
        ),
        "62.8 GiB": Computed(lambda: gib("flux-dev")),
        "31.4 GiB of disk": Computed(lambda: gib("flux-dev", width=2)),
        "0.99 to 1.04 times as fast": Dated("67f4caa"),
        "1.04 to 1.15 times as fast": Dated("67f4caa"),
        "3.29 to 3.50 times as fast": Dated("78a1f55"),
    },
    "docs/generate.md": {
        "7.5; SDXL 5, with a mask 7.5; FLUX.1-dev 3.5, with a picture 7": SETTING,
        "0.8; SDXL 0.3, Flux 0.6; with a mask 1, SDXL 0.9999, Flux 0.6": SETTING,
        "above 0 | 0.4": SETTING,
        "guidance off | 1.5": SETTING,
    },
    "docs/hires.md": {
        "0.4 of 20 steps are 8 | 0.4": SETTING,
        "a strength of 0.5 to 0.7": SETTING,
        "to 100 dB and more with `latent`": Asserted(HIRES_PARITY, "LEAST = 100"),
        "to 60 dB and more with `lanczos`": Asserted(HIRES_PARITY, "LEAST_8_BIT = 60"),
    },
    "docs/image-to-image.md": {
        "with the strengths 0.3, 0.5 and 0.7; as a yellow circle with 0.7": SETTING,
        "over it with the strengths 0.3, 0.5 and 0.7": SETTING,
        "a strength below 0.05": SETTING,
        "to 100 dB and more": PICTURES_PARITY,
        "at the strengths 0.3, 0.75 and 1": SETTING,
        "0.8, with SDXL 0.3, with Flux 0.6": SETTING,
        "7 with a picture, and 3.5 without": SETTING,
        "(7.5, of SDXL 5) and": SETTING,
        "(1.5; larger stays closer": SETTING,
        "draws to 100 dB": Asserted(
            "pipelines/test_instructed_parity.py::test_pictures_are_those_of_diffusers",
            "LEAST = 100",
        ),
    },
    "docs/inpainting.md": {
        "from 128 of 255 on": SETTING,
        "to 100 dB and more": MASKS_PARITY,
    },
    "docs/int8.md": {
        "5 dB more than the target (35 dB)": Computed(
            lambda: (int8_search.DECODER_MARGIN, int8_search.TARGET + int8_search.DECODER_MARGIN)
        ),
        "The default is **30 dB**": Computed(lambda: int8_search.TARGET),
        "has 100 million weights or more": Computed(lambda: int8_effort.LARGE / 1e6),
        "error of 8 of 255 levels": Computed(lambda: (255 * 10 ** (-int8_search.TARGET / 20), 255)),
        "wrong by more than 5 %": Asserted(
            "engines/test_int8_products.py"
            "::test_products_with_weights_of_eight_bits_are_exact_where_they_are_used",
            "> 0.05",
        ),
        "it is **25 dB**": Computed(lambda: int8_search.FEW_STEPS_TARGET),
        "have a PSNR of 45.1 dB (the worst 39.5 dB), the decoder alone 55.6 dB": Dated("dc5b67b"),
        "took 3.1 s in int8 and 5.2 s in float32": Dated("dc5b67b"),
        "took 8.7 s in OpenVINO in float32, and 15.1 s in bf16": Dated("dc5b67b"),
        "a PSNR of 43.4 dB to float32": Dated("a60db3c"),
        "191, at 44.4 dB": Dated("a60db3c"),
        "40.4 dB; wholly in bf16 50.3 dB), the decoder alone 51.9 dB": Dated("a60db3c"),
        "a PSNR of 43.0 dB (the worst 36.9 dB), the decoder alone 54.9 dB": Dated("8ed8d65"),
        "(0.99 times as fast, 0.84 to 1.15)": Dated("8ed8d65"),
        "1.17 times as fast (1.09 to 1.34)": Dated("8ed8d65"),
        "0.46 times as fast (0.41 to 0.58)": Dated("8ed8d65"),
    },
    "docs/memory.md": {
        "at most 256 MiB of weights": Computed(lambda: KEPT_BYTES / MIB),
        "2 KiB a pixel": Computed(lambda: 2 * 256 * FLOAT32 / 1024),
        "at least 90 % of the weights": Asserted(
            "pipelines/test_staged_peak.py::test_staged_takes_less_by_what_is_not_loaded",
            ">= 0.9 * others",
        ),
        "1.03 times": Dated("78a1f55"),
        "1.26 times": Dated("78a1f55"),
        "a peak of 3.7 GB": Dated("78a1f55"),
        "| 2.5 | 2 |": Computed(lambda: (PaddleEngine.held_features, PaddleEngine.held_scores)),
        "| 1.2 |": Computed(lambda: OpenVINOEngine.held_features),
        "| 1.3 |": Computed(lambda: ONNXRuntimeEngine.held_features),
        "needs 26 GB of disk": Chosen("the size of what a script writes"),
        "takes 0.23 MiB": Computed(lambda: 77 * 768 * FLOAT32 / MIB),
        "one of Flux 8 MiB at": Computed(lambda: 512 * 4096 * FLOAT32 / MIB),
    },
    "docs/own-checkpoint.md": {
        "(2.0, 2.1: `v_prediction`": Chosen("versions of Stable Diffusion"),
        "since PyTorch 1.6": Chosen("a version of PyTorch"),
    },
    "docs/passes.md": {
        "take 4 times the memory": Computed(lambda: 36 / 9),
        "take 1.8 times the memory": Computed(lambda: 16 / 9),
        "1.13 TFLOP": Asserted(
            "passes/test_hoist_flux.py::test_a_step_of_full_width_has_nothing_but_its_blocks",
            "== 1.13",
        ),
        "189 million weights": Asserted(
            "passes/test_hoist_flux.py::test_a_step_of_full_width_has_nothing_but_its_blocks",
            "== 189",
        ),
        "about 1e-5": Computed(
            lambda: max(find_row("sd15", "openvino").quality.relative_errors.values())
        ),
        "from 3.9 to 5.2 GiB": Computed(lambda: (unet_gib("winograd-2x2"), unet_gib())),
        "they are 3.2 GiB": Computed(lambda: gib("sd15", "unet")),
        "| `phase-upsample`, `channel-group-norm` | 1.70 × | 1.31 to 2.16": Dated("7b9ae8d"),
        "| `channel-group-norm`, `resize-nearest` | 1.44 × | 1.27 to 2.10": Dated("7b9ae8d"),
        "| only `phase-upsample` | 1.34 × | 1.00 to 1.74": Dated("7b9ae8d"),
        "| only `resize-nearest` | 1.24 × | 0.97 to 1.50": Dated("7b9ae8d"),
        "| only `channel-group-norm` | 1.08 × | 0.83 to 1.31": Dated("7b9ae8d"),
        "`resize-nearest`, `native-attention` | 2.63 × | 2.16 to 3.05": Dated("3f34d1a"),
        "took 2.79 s with the five and 2.99 s": Dated("3f34d1a"),
        "`channel-group-norm`, `resize-nearest` | 2.36 × | 1.91 to 2.92": Dated("3f34d1a"),
        "| only `channel-group-norm` | 1.67 × | 1.37 to 1.91": Dated("3f34d1a"),
        "| `phase-upsample`, `resize-nearest` | 1.27 × | 1.12 to 1.39": Dated("3f34d1a"),
        "| only `channel-group-norm` | 1.10 ×": Dated("1b0bafe"),
        "| only `phase-upsample` | 1.13 ×": Dated("1b0bafe"),
        "| `channel-group-norm`, `resize-nearest` | 1.16 ×": Dated("1b0bafe"),
        "| `channel-group-norm`, `phase-upsample` | 1.32 × | 1.07 ×": Dated("1b0bafe"),
        "| the same, `split-geglu` | | 1.06 ×": Dated("1b0bafe"),
        "| the same, `split-geglu`, `merge-qkv` | | 1.05 ×": Dated("1b0bafe"),
        "took 620 ms with broadcasting": Dated("1b0bafe"),
        "| 193 of 200 | 191 of 200 |": Dated("833e480"),
        "34.5 dB on average, 15.2 dB for the worst": Dated("833e480"),
    },
    "docs/precision.md": {
        "made 316 GFLOP/s in fp32, 170 in bf16, 1000 in int8": Dated("e01b869"),
        "9.5e-3 | 0.81 | | 8.6e-4 | 1.22": Dated("73cadf3"),
        "1.7e-2 | 0.94 | | 1.7e-3 | 0.99": Dated("73cadf3"),
        "1.0e-2 | 0.93 | | 1.1e-3 | 0.97": Dated("73cadf3"),
        "6.0e-3 | 0.94 | | 7.5e-4 | 0.97": Dated("73cadf3"),
        "9.1e-3 | 0.89 | 0.99 | 8.5e-4 | 1.22 | 1.10": Dated("73cadf3"),
        "9.5e-3 | 0.90 | 0.95 | 1.0e-3 | 0.97 | 0.98": Dated("73cadf3"),
        "1.0e-2 | 0.89 | 1.20 | 9.3e-4 | 1.12 | 1.43": Dated("73cadf3"),
        "5.4e-3 | 0.99 | 1.15 | 6.5e-4 | 1.04 | 1.32": Dated("73cadf3"),
        "1.6e-2 | 0.90 | 1.02 | 1.6e-3 | 1.02 | 1.03": Dated("73cadf3"),
        "8.6e-3 | 10.53 | 0.75 | 8.0e-4 | 0.83 | 0.87": Dated("73cadf3"),
        "the error is 0.7 of": Dated("73cadf3"),
        "9.4e-3 | 0.97 | 1.0e-3 | 1.23": Dated("8257333"),
        "1.7e-2 | 1.01 | 1.7e-3 | 1.03": Dated("8257333"),
        "1.5e-2 | 1.02 | 1.6e-3 | 1.01": Dated("8257333"),
        "9.7e-3 | 1.02 | 1.0e-3 | 1.23": Dated("7b9ae8d"),
        "1.1e-2 | 1.10 | 1.1e-3 | 1.30": Dated("7b9ae8d"),
        "reading their outputs took 0.04 s": Dated("bfbe361"),
        "a run took 13 to 26 s of the UNet and 30 to 41 s of the decoder": Dated("73cadf3"),
        "| 8.2e-7 |": Dated("96daf6f"),
        "86 dB | 6.7e-7": Dated("96daf6f"),
        "83 dB | 4.4e-7": Dated("96daf6f"),
        "55 dB | 8.0e-4": Dated("96daf6f"),
        "38 dB | 6.2e-3": Dated("96daf6f"),
        "to 65 dB and more": Asserted(
            f"compiler/test_precision_guard.py::{BOX_HALF}", '"fp16", 65'
        ),
        "to 45 dB and more": Asserted(
            f"compiler/test_precision_guard.py::{BOX_HALF}", '"bf16", 45'
        ),
        "to 50 dB and more (": Asserted(
            "compiler/test_precision_guard.py::test_a_run_that_overflows_is_repeated_and_remembered",
            ">= 50",
        ),
    },
    "docs/prompts.md": {
        "| 1.1 times the weight for each pair |": WEIGHT_RULE,
        "| 1 / 1.1 times the weight for each pair |": WEIGHT_RULE,
        "| 1.3 times the weight;": WEIGHT_RULE,
        "agree within 1e-4": Asserted(
            "pipelines/test_weighted_prompts.py::test_stable_diffusion", "<= 1e-4"
        ),
        "a PSNR of at least 110 dB": Asserted(
            "pipelines/test_weighted_prompts.py::test_stable_diffusion", "LEAST = 110"
        ),
    },
    "docs/sdxl.md": {
        "agree to 120 dB and more": SDXL_PARITY,
        "to 100 dB and more, with": REFINER_PARITY,
        "draws the first 80 %": SETTING,
        "0.8 with a refiner": SETTING,
        "with a refiner | 2.5": SETTING,
        "2.57 billion | 4.8 GiB | 9.6 GiB": Computed(
            lambda: (billions("sdxl", "unet"), gib("sdxl", "unet", width=2), gib("sdxl", "unet"))
        ),
        "0.69 billion | 1.3 GiB | 2.6 GiB": Computed(
            lambda: (
                billions("sdxl", "text_encoder_2"),
                gib("sdxl", "text_encoder_2", width=2),
                gib("sdxl", "text_encoder_2"),
            )
        ),
        "0.21 billion | 0.4 GiB | 0.8 GiB": Computed(
            lambda: (
                billions("sdxl", "text_encoder", "vae"),
                gib("sdxl", "text_encoder", "vae", width=2),
                gib("sdxl", "text_encoder", "vae"),
            )
        ),
        "12.9 GiB": Computed(lambda: gib("sdxl")),
        "6.5 GiB of disk": Computed(lambda: gib("sdxl", width=2)),
        "took 17.0 GiB at its peak": Dated("78a1f55"),
    },
    "docs/schedulers.md": {
        "to 1e-4 of the largest value": Asserted(
            "schedulers/test_trajectories.py::test_trajectory_equals_diffusers",
            "LARGEST_ERROR = 1e-4",
            "schedulers/reference_trajectory.py",
        ),
        "torchsde's, to 1e-5": Asserted(
            "schedulers/test_brownian_tree.py::test_changes_equal_torchsde", "wanted, atol=1e-5"
        ),
        "rounded to 1e-6": Chosen("a constant of torchsde"),
        "they agree to 1e-4, too": Asserted(
            "schedulers/test_trajectories.py::test_sde_equals_diffusers_at_every_length",
            "LARGEST_ERROR = 1e-4",
            "schedulers/reference_trajectory.py",
        ),
        "agree to 5e-3": Asserted(
            "schedulers/test_trajectories.py"
            "::test_noise_of_sde_moves_little_with_the_last_bits_of_torch",
            "LARGEST_ERROR_OF_MKL = 5e-3",
            "schedulers/reference_trajectory.py",
        ),
    },
    "docs/shapes-model.md": {
        "at most 16 MB": SIZE,
        "`shapes` get 96.5 % of them right: 96 % in English, 97 % in Chinese, 99 %": SHAPES_JUDGED,
        "gets 97.5 % right: 98 % in English, 97 % in Chinese, 98 %": FLUX_SHAPES_JUDGED,
        "among 2 (96 %), 2.5 (96 %), 3 and 3.5 (97 %)": Dated("9343ff4"),
        "scale 3 gets 97 %": Dated("9343ff4"),
        "| 3 minutes |": Dated("30483a3"),
        "1 second a step": Dated("30483a3"),
        "1.2 to 1.6 seconds a step, 70 minutes": Dated("30483a3"),
        "0.6 s a step, 20 minutes": Dated("9343ff4"),
        "0.36 s a step, 36 minutes": Dated("9343ff4"),
        "0.7 s a step, 19 minutes": Dated("9343ff4"),
        "0.9 s a step, 23 minutes": Dated("9343ff4"),
        "92 of 100 of the captions": Dated("9343ff4"),
        "2.4 MB": Asserted("test_shapes_model.py::test_the_controlnet_is_small", "<= 2.45e6"),
        "On 100 of 100 maps": PLACED,
        "and scale 2.5": SETTING,
    },
}
