"""``passes`` counts, proves and times each pass alone."""

import json
import re

import command_line
import pytest
from user_distribution import BLOCKS, write_pass

from fastdeploy_diffusion.passes.registry import pass_names

COMPONENTS = ("text_encoder", "denoiser", "vae_decoder")
LAYER_PASSES = pass_names()[:9]
# Of the tiny model, layer pass by layer pass: its convolutions are too narrow for Winograd.
COUNTS = {
    "text_encoder": (0, 2, 0, 0, 0, 0, 0, 0, 0),
    "denoiser": (0, 4, 4, 0, 1, 0, 0, 0, 12),
    "vae_decoder": (0, 1, 0, 0, 1, 0, 0, 0, 0),
}
# The one that changes the picture is a layer pass, too, and the last.
CHANGING = {"downsample-tokens": {"denoiser": 3}}
KEYS = ["component", "pass", "matched", "expected", "skipped", "error", "changes_picture"]
TIMING_KEYS = ["seconds_without", "seconds_with", "times_as_fast", "times_as_fast_quartiles"]
FOLD_NORM = {"fold-norm": "FoldNorm"}


def run(*words, code=0, engine="paddle-eager"):
    chosen = ("--engine", engine) if engine else ()
    return command_line.run("passes", *words, *chosen, code=code)


def read(*words, **options):
    return json.loads(run(*words, "--json", **options).stdout)


def test_json_has_a_row_for_each_component_and_pass(tiny_sd1, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"model_path: {tiny_sd1}\ncache_dir: builds\n")
    rows = read("--config", file)
    assert [(row["component"], row["pass"]) for row in rows] == [
        (component, name) for component in COMPONENTS for name in pass_names()
    ]
    for row in rows:
        assert list(row) == KEYS
        count, skipped = 0, {"": "paddle-eager reads no ONNX graph"}
        if row["pass"] in LAYER_PASSES:
            count, skipped = COUNTS[row["component"]][LAYER_PASSES.index(row["pass"])], {}
        elif row["pass"] in CHANGING:
            count, skipped = CHANGING[row["pass"]].get(row["component"], 0), {}
        expected = None if row["pass"] == "channels-last" else count
        assert (row["matched"], row["expected"], row["skipped"]) == (count, expected, skipped)
        assert row["error"] is None if count == 0 else 0 <= row["error"] <= 1e-5
        assert row["changes_picture"] is (row["pass"] in CHANGING and count > 0)
    # What is only tried pushes nothing out of the cache.
    assert {each.name for each in (tmp_path / "builds").iterdir()} <= {"digests", "references"}


def test_the_table_says_the_same(tiny_sd1):
    result = run("--model", tiny_sd1, "--passes", ",".join(LAYER_PASSES))
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == str(tiny_sd1)
    assert [line for line in lines if not line.startswith(" ")][1:] == [
        f"{name}, paddle-eager on cpu in fp32" for name in COMPONENTS
    ]
    assert re.fullmatch(r"  merge-qkv +4 of 4 +within \de[-+]\d\d of the Paddle layer", lines[13])
    nothing = (
        "merge-kv",
        "merge-qkv-mlp",
        "phase-upsample",
        "winograd-4x4",
        "winograd-2x2",
        "hoist-invariants",
    )
    assert [line.split() for line in lines[4:11] if "channels-last" not in line] == [
        [name, "0", "of", "0"] for name in nothing
    ]


def test_the_table_says_what_changes_the_picture(tiny_sd1):
    text = run("--model", tiny_sd1, "--passes", "downsample-tokens").stdout
    pattern = r"  downsample-tokens +3 of 3 +within .* of the Paddle layer with it, and so another"
    assert len(re.findall(pattern, text)) == 1


def test_measure_adds_the_times(tiny_sd1, monkeypatch):
    monkeypatch.setattr("fastdeploy_diffusion.compiler.turns._SECONDS", 0.0)
    words = ("--model", tiny_sd1, "--passes", "merge-kv", "--measure")
    rows = {row["component"]: row for row in read(*words)}
    assert list(rows["denoiser"]) == list(rows["vae_decoder"]) == [*KEYS, *TIMING_KEYS]
    assert [rows["vae_decoder"][key] for key in TIMING_KEYS] == [None] * 4
    row = rows["denoiser"]
    assert 0 < row["seconds_with"] < 10
    assert 0 < row["seconds_without"] < 10
    first, third = row["times_as_fast_quartiles"]
    assert first <= row["times_as_fast"] <= third
    text = run(*words).stdout
    pattern = r"ms without, .* ms with: \d+\.\d\d times as fast \(\d+\.\d\d to .* turns\)"
    assert len(re.findall(pattern, text)) == 1


@pytest.mark.slow
def test_the_engine_is_the_one_asked_for(tiny_sd1):
    rows = read("--model", tiny_sd1, "--passes", "phase-upsample", "--measure", engine="openvino")
    assert [row["matched"] for row in rows] == [0, 1, 1]
    assert all(row["error"] <= 1e-4 and row["times_as_fast"] > 0 for row in rows[1:])
    text = run("--model", tiny_sd1, "--passes", "merge-kv", engine="openvino").stdout
    assert text.count("openvino on cpu in fp32") == 3


def test_a_graph_pass_has_nothing_to_do_where_no_graph_is_read(tiny_sd1):
    result = run("--model", tiny_sd1, "--passes", "fuse-attention")
    assert result.stdout.count("fuse-attention  0 of 0") == 3
    reason = "    skipped the whole network: paddle-eager reads no ONNX graph\n"
    assert result.stdout.count(reason) == 3
    assert "denoiser: paddle-eager reads no ONNX graph to apply fuse-attention to" in result.stderr


@pytest.mark.slow
def test_a_graph_pass_is_tried_on_the_graph_that_the_engine_reads(tiny_sd1):
    words = ("--model", tiny_sd1, "--passes", "fuse-attention,fuse-group-norm-silu")
    rows = read(*words, engine="onnxruntime")
    assert [row["matched"] for row in rows] == [2, 0, 8, 0, 1, 0]
    assert [row["expected"] for row in rows] == [2, 0, 8, 0, 1, 0]
    assert [len(row["skipped"]) for row in rows] == [0, 0, 0, 17, 0, 13]
    assert all(row["error"] <= 1e-4 for row in rows if row["matched"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--passes", "merge-qvk"], r"command line: passes is .*\n  fix: did you mean 'merge-qkv'"),
        (["--passes", "merge-qkv,"], r"command line: passes is "),
        (["--config", "none.yaml"], r"none\.yaml: there is no such file"),
        (["--config", "empty.yaml"], r"passes is empty.*\n  fix: name some with --passes"),
        (
            ["--config", "typo.yaml"],
            r"typo\.yaml:2:9: passes is .*\n.*\n  fix: did you mean 'merge",
        ),
        (["--model", "no/such"], r"no/such does not exist"),
    ],
)
def test_bad_input_is_explained(tiny_sd1, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").write_text(f"model_path: {tiny_sd1}\npasses: []\n")
    (tmp_path / "typo.yaml").write_text(f"model_path: {tiny_sd1}\npasses: [merge-kvs]\n")
    result = run(*words, code=2)
    assert re.match(rf"error: .*{message}", result.stderr, re.DOTALL)
    assert result.stdout == ""


def test_an_engine_that_cannot_run_is_loud(tiny_sd1, tmp_path):
    file = tmp_path / "strict.yaml"
    file.write_text(f"model_path: {tiny_sd1}\ncpu_fallback: false\n")
    assert "cannot run here" in run("--config", file, code=1, engine="tensorrt").stderr


def test_a_users_pass_is_tried_like_ours(install, tiny_sd1):
    install(write_pass(), FOLD_NORM)
    install("raise ValueError('no licence')", {"broken": "X"}, name="bad", module="bad_passes")
    result = run("--model", tiny_sd1, "--json")
    assert re.fullmatch(
        r"warning: left out: the pass 'broken' of bad 1\.0 does not load: ValueError: no licence.*",
        result.stderr.strip(),
    )
    rows = [row for row in json.loads(result.stdout) if row["pass"] == "fold-norm"]
    assert [row["matched"] for row in rows] == [row["expected"] for row in rows] == [0, BLOCKS, 0]
    assert 0 < rows[1]["error"] <= 1e-5
    assert len(json.loads(result.stdout)) == 3 * (len(pass_names()) + 1)


def find_fault(install, model, code):
    """Try a bad pass beside one of ours; give its row of the denoiser and what is said of it."""
    install(code, FOLD_NORM)
    words = ("--model", model, "--passes", "merge-kv,fold-norm")
    result = run(*words, "--json", code=1)
    good, bad = (row for row in json.loads(result.stdout) if row["component"] == "denoiser")
    assert good["error"] <= 1e-5
    (line,) = result.stderr.splitlines()
    table = run(*words, code=1)
    assert table.stderr == ""
    (same,) = re.findall(r"^    cannot be used: (.*)$", table.stdout, re.MULTILINE)
    # Paddle numbers its weights, further with every run.
    assert re.sub(r"_\d+\.", "_N.", line) == "warning: denoiser: " + re.sub(r"_\d+\.", "_N.", same)
    return bad, same


def test_a_wrong_count_ends_with_1(install, tiny_sd1):
    row, problem = find_fault(install, tiny_sd1, write_pass(expected="9"))
    assert (row["matched"], row["expected"], row["error"]) == (BLOCKS, 9, None)
    assert problem == "the pass fold-norm of acme-passes 1.0 rewrote 4 places of 9"


def test_wrong_numbers_end_with_1(install, tiny_sd1):
    code = write_pass('return {WEIGHT: Derivation((WEIGHT,), f"{__name__}.spoil")}')
    row, problem = find_fault(install, tiny_sd1, code)
    assert row["matched"] == BLOCKS
    assert row["error"] > 1e-4
    assert f"differs from the Paddle layer by {row['error']:.2e}" in problem


def test_a_crash_ends_with_1(install, tiny_sd1):
    row, problem = find_fault(install, tiny_sd1, write_pass("layer.norm4.weight"))
    assert (row["matched"], row["expected"], row["error"]) == (None, None, None)
    assert problem.startswith("the pass fold-norm of acme-passes 1.0 failed on UNet2DCondition")
    code = write_pass('return {WEIGHT: "norm3.weight"}')
    row, problem = find_fault(install, tiny_sd1, code)
    assert (row["matched"], row["error"]) == (BLOCKS, None)
    assert problem.startswith("the pass fold-norm of acme-passes 1.0 fails its check on denoiser")


def test_what_is_skipped_is_said_with_its_reason(install, tiny_sd1):
    code = write_pass(expected="0").replace('return ""', 'return "not on Sundays"')
    install(code, FOLD_NORM)
    words = ("--model", tiny_sd1, "--passes", "fold-norm")
    (_, row, _) = read(*words)
    assert (row["matched"], row["error"]) == (0, None)
    assert len(row["skipped"]) == BLOCKS
    assert set(row["skipped"].values()) == {"not on Sundays"}
    text = run(*words).stdout
    assert all(f"    skipped {path}: not on Sundays\n" in text for path in row["skipped"])
