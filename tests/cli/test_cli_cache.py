"""``cache`` shows and removes what ``generate`` has kept."""

import json
from functools import partial

import command_line
import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.cli.cache import describe_size
from fastdeploy_diffusion.cli.table import format_age
from fastdeploy_diffusion.criteria import Accuracy
from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import (
    CINN_KERNELS,
    DIGESTS,
    EMBEDDINGS,
    NATIVE,
    REFERENCES,
    TENSORRT_TIMINGS,
    ArtifactCache,
)
from fastdeploy_diffusion.runtime.cache_entry import ENTRY_FILE, CacheKey, Proof
from fastdeploy_diffusion.runtime.recipe import Derivation, Weight

run = partial(command_line.run, "cache")


@pytest.fixture
def folder(tmp_path):
    """A cache with the builds of one pipeline."""
    model = write_tiny_sd(tmp_path / "model")
    cache = tmp_path / "cache"
    pipeline = SDPipeline(DiffusionConfig(model_path=model, cache_dir=cache, engine="paddle"))
    pipeline.text_to_image("a cat", num_inference_steps=1)
    return cache


def test_builds_are_listed_verified_and_removed(folder):
    where = ("--dir", str(folder))
    assert run("path", *where).stdout.strip() == str(folder)
    listed = json.loads(run("ls", "--json", *where).stdout)
    assert {each["component"] for each in listed} == {"text_encoder", "denoiser", "vae_decoder"}
    assert all(each["relative_error"] < 1e-4 and each["bytes"] > 0 for each in listed)
    assert {each["model"] for each in listed} == {"model"}
    lines = run("ls", *where).stdout.splitlines()
    assert lines[0].split() == [
        *("build", "model", "component", "engine", "precision", "size", "bytes", "used")
    ]
    assert all(
        each["digest"][:8] == line[:8] for each, line in zip(listed, lines[1:], strict=False)
    )
    sizes = {line.split()[2]: " ".join(line.split()[5:7]) for line in lines[1:4]}
    assert sizes == {
        "text_encoder": "77 tokens",
        "denoiser": "16x16 latents",
        "vae_decoder": "32x32 px",
    }
    assert lines[4].startswith("3 builds, ")
    assert max(map(len, lines)) <= 100

    assert run("verify", *where).stdout.count("whole") == 3
    (file,) = (folder / listed[0]["digest"]).glob("artifact/program.json")
    file.write_text("changed")
    damaged = json.loads(run("verify", "--json", *where, code=1).stdout)
    assert [each["damage"] for each in damaged] == ["program.json has changed", "", ""]

    assert run("rm", listed[0]["digest"][:12], *where).stdout == "removed 1 build\n"
    assert len(json.loads(run("ls", "--json", *where).stdout)) == 2
    assert run("gc", *where).stdout == "removed 0 builds\n"
    assert run("gc", "--limit-gib", "0", *where).stdout == "removed 2 builds\n"
    assert "0 builds" in run("ls", *where).stdout
    for name in (DIGESTS, TENSORRT_TIMINGS, CINN_KERNELS, NATIVE):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "note").touch()
    assert run("rm", "--all", *where).stdout == "removed 0 builds\n"
    assert [each.name for each in folder.iterdir()] == ["locks"]


@pytest.mark.parametrize(
    ("kind", "counted"),
    [("embedding", "embeddings of 1 text"), ("reference", "references of 1 run")],
)
def test_kept_arrays_are_counted_verified_and_removed(tmp_path, kind, counted):
    where, folder = ("--dir", str(tmp_path)), tmp_path / f"{kind}s"
    assert folder.name in (EMBEDDINGS, REFERENCES)
    files = ArrayFiles(folder, limit=10**6)
    files.keep("ab", {"values": np.ones((2, 3), np.float32)})
    assert f"{counted}, 0.0 MiB" in run("ls", *where).stdout
    run("verify", *where)
    (folder / "ab.safetensors").write_bytes(b"")
    assert f"{kind} ab.safetensors: " in run("verify", *where, code=1).stdout
    (damaged,) = json.loads(run("verify", "--json", *where, code=1).stdout)
    assert damaged[kind] == "ab.safetensors"
    run("rm", "--all", *where)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "no build to remove is named"), (("12ab",), "no builds begin with '12ab'")],
)
def test_wrong_names_are_explained(tmp_path, words, message):
    result = run("rm", *words, "--dir", str(tmp_path), code=2)
    assert message in result.stderr


def test_a_cache_that_is_not_there_is_empty(tmp_path):
    assert "0 builds" in run("ls", "--dir", str(tmp_path / "none")).stdout
    assert not (tmp_path / "none").exists()


def test_what_is_in_use_stays(tmp_path):
    where = ("--dir", str(tmp_path))
    cache, key = ArtifactCache(tmp_path, limit=0), CacheKey({"engine": "test"})
    with cache.lock(key) as slot:
        slot.stage()
        slot.publish({})
    with cache.read(key):
        result = run("rm", "--all", *where, code=1)
        assert result.stdout == "removed 0 builds\n"
        assert "1 build stays: another process builds or loads it now" in result.stderr
        assert run("gc", "--limit-gib", "0", *where).stdout == "removed 0 builds\n"
    assert run("rm", "--all", *where).stdout == "removed 1 build\n"


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([["sample", [None, 4, 64, 96], "float32"]], [], "96x64 latents"),
        ([["sample", [None, 4, ["height", 8, 16, 24], 16], "float32"]], [], "16x8-24 latents"),
        ([["latents", [None, 4, 8, 8], "float32"]], [["images", [1, 3, 64, 64], "f"]], "64x64 px"),
        ([["input_ids", [None, 77], "int64"]], [["hidden", [13, None, 77, 8], "f"]], "77 tokens"),
        ([["hidden_states", [None, 4096, 64], "f"], ["timestep", [None], "f"]], [], "4096 tokens"),
        (
            [],
            [["images", [None, 3, ["h_x8", 64, 128, 192, ["h", 8, 16, 24], 8, 1], 96], "f"]],
            "96x64-192 px",
        ),
        ([], [], ""),
    ],
)
def test_sizes_are_told_in_few_words(inputs, outputs, words):
    assert describe_size({"inputs": inputs, "outputs": outputs}) == words


def keep_graph(folder, **ingredients):
    """Keep a graph that no precision is an ingredient of, unless it is given."""
    key = CacheKey(
        {
            "component": "denoiser",
            "engine": "openvino",
            "packages": {},
            "signature": {"inputs": [["sample", [None, 4, 64, 64], "f"]], "outputs": []},
            **ingredients,
        }
    )
    cache = ArtifactCache(folder, limit=10**9)
    with cache.lock(key) as slot:
        (slot.stage() / "graph").write_bytes(bytes(3000))
        return cache, slot.publish({})


def test_a_graph_is_listed_with_the_precisions_that_it_is_proven_in(tmp_path):
    cache, entry = keep_graph(tmp_path)
    where = ("--dir", str(tmp_path))
    (listed,) = json.loads(run("ls", "--json", *where).stdout)
    assert (listed["precision"], listed["relative_error"], listed["proofs"]) == ("", None, [])
    for precision, error in (("fp32", 1e-6), ("fp32", 3e-6), ("bf16", 2e-3)):
        key = CacheKey({"precision": precision, "weights": str(error)})
        cache.record_proof(entry, Proof(key, Accuracy(error, 1)))
    (listed,) = json.loads(run("ls", "--json", *where).stdout)
    assert (listed["precision"], listed["relative_error"]) == ("bf16, fp32", 2e-3)
    assert sorted(each["relative_error"] for each in listed["proofs"]) == [1e-6, 3e-6, 2e-3]
    assert "openvino  bf16, fp32  64x64 latents" in run("ls", *where).stdout


def test_builds_of_earlier_versions_are_listed_and_removed(tmp_path):
    _, entry = keep_graph(tmp_path, precision="fp32")
    file = entry.folder / ENTRY_FILE
    earlier = json.loads(file.read_text())
    del earlier["record"]
    file.write_text(json.dumps({**earlier, "proof": {"relative_error": 1e-6, "passes": {}}}))
    where = ("--dir", str(tmp_path))
    (listed,) = json.loads(run("ls", "--json", *where).stdout)
    assert (listed["precision"], listed["proofs"]) == ("fp32", [])
    assert "whole" in run("verify", *where).stdout
    assert run("gc", "--limit-gib", "0", *where).stdout == "removed 1 build\n"


class Tensors:
    """What a checkpoint has: a tensor of 4 KiB."""

    def read(self, name):
        return np.ones(1024, np.float32)

    read_stored = read

    def digest_tensor(self, name):
        return name

    def is_lasting(self, name):
        return True


def test_weights_count_for_each_build_and_once_in_the_sum(tmp_path):
    cache, where = ArtifactCache(tmp_path, limit=10**9), ("--dir", str(tmp_path))
    weights = {"stacked": Weight(Derivation(("a", "a"), "concatenate"))}
    for precision in ("fp32", "bf16"):
        ingredients = {"component": "denoiser", "engine": "openvino", "precision": precision}
        signature = {"inputs": [], "outputs": []}
        key = CacheKey({**ingredients, "packages": {}, "signature": signature})
        with cache.lock(key) as slot:
            (slot.stage() / "graph").write_bytes(bytes(1000))
            slot.open_store().bind(weights, Tensors(), is_mapped=True)
            slot.publish({"relative_error": None})
    size = 2 * 4096 + 128  # with the head of its file
    listed = json.loads(run("ls", "--json", *where).stdout)
    assert [(each["bytes"], each["weight_bytes"]) for each in listed] == [(1000, size)] * 2
    *lines, total = run("ls", *where).stdout.splitlines()[1:]
    assert all("9.1 KiB" in line for line in lines)
    assert total == "2 builds, 10.1 KiB"

    (file,) = (tmp_path / "weights").glob("*.npy")
    file.write_bytes(file.read_bytes()[:-1])
    assert f"weight {file.name}: it has changed\n" in run("verify", *where, code=1).stdout
    assert json.loads(run("verify", "--json", *where, code=1).stdout)[2]["weight"] == file.name
    run("rm", listed[0]["digest"], *where)
    assert file.exists()
    run("rm", listed[1]["digest"], *where)
    assert not (tmp_path / "weights").exists()


def test_a_long_name_is_cut_and_lines_stay_short(tmp_path):
    cache = ArtifactCache(tmp_path, limit=10**9)
    key = CacheKey(
        {
            "component": "denoiser_double_block",
            "engine": "onnxruntime",
            "precision": "fp32",
            "packages": {},
            "signature": {"inputs": [["sample", [None, 4, 128, 128], "f"]], "outputs": []},
        }
    )
    with cache.lock(key) as slot:
        (slot.stage() / "graph").write_bytes(bytes(3000))
        slot.publish({}, "a-model-whose-name-goes-on-and-on-and-on" * 3)
    for command in ("ls", "verify"):
        _, line, total = run(command, "--dir", str(tmp_path)).stdout.splitlines()
        assert len(line) <= 100
        assert "  a-model-" in line
        assert "…" in line
        assert total == "1 build, 2.9 KiB"
    assert json.loads(run("ls", "--json", "--dir", str(tmp_path)).stdout)[0]["model"][-3:] == "-on"


def test_ages_are_told_in_one_unit():
    ages = [-5, 59, 60, 3599, 3600, 86399, 86400, 400 * 86400]
    assert list(map(format_age, ages)) == [
        *("now", "now", "1 min", "59 min", "1 h", "23 h", "1 d", "400 d")
    ]
