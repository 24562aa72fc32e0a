"""Passes of other distributions: found, checked like ours, and never a danger to the others."""

import warnings

import numpy as np
import pytest
from user_distribution import BLOCKS, MODULE, write_pass

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import ConfigError, PassError, ResourceError
from fastdeploy_diffusion.passes.registry import choose_passes, make_all_passes, pass_names
from fastdeploy_diffusion.passes.user_passes import PassWarning

NAME = "fold-norm"
FOLD_NORM = {NAME: "FoldNorm"}
GOOD = write_pass()


def open_pipeline(model, passes, **options):
    options = {"engine": "paddle-eager", **options}
    return SDPipeline(DiffusionConfig(model_path=model, passes=passes, **options))


def draw(model, passes, **options):
    pipeline = open_pipeline(model, passes, **options)
    picture = pipeline.text_to_image("a cat", seed=1, num_inference_steps=2, output_type="np")
    pipeline.close()
    return picture, pipeline.report.components


def test_a_user_pass_is_chosen_by_name_and_follows_ours(install):
    install(GOOD, FOLD_NORM, version="1.2")
    chosen = choose_passes([NAME, "merge-kv", "merge-qkv"])
    assert [str(each) for each in chosen] == [
        "merge-qkv",
        "merge-kv",
        "fold-norm of acme-passes 1.2",
    ]
    assert [each.name for each in make_all_passes()] == [*pass_names(), NAME]
    # Nobody gets it without asking.
    assert choose_passes([]) == []


ENGINES = ["paddle-eager", pytest.param("openvino", marks=pytest.mark.slow)]


@pytest.mark.parametrize("engine", ENGINES)
def test_it_rewrites_counts_and_keeps_the_picture(install, tiny_sd1, engine):
    install(GOOD, FOLD_NORM)
    plain, _ = draw(tiny_sd1, [], engine=engine)
    picture, components = draw(tiny_sd1, [NAME, "merge-qkv"], engine=engine)
    counts = {each.name: dict(each.passes) for each in components}
    assert counts == {
        "text_encoder": {"merge-qkv": 2, NAME: 0},
        "denoiser": {"merge-qkv": 4, NAME: BLOCKS},
        "vae_decoder": {"merge-qkv": 1, NAME: 0},
    }
    assert -10 * np.log10(np.mean((picture - plain) ** 2)) >= 80


@pytest.mark.slow
def test_another_version_or_other_code_is_another_build(install, tiny_sd1, tmp_path):
    def are_cached():
        _, components = draw(tiny_sd1, [NAME], engine="openvino", cache_dir=tmp_path / "cache")
        return {each.cached for each in components}

    install(GOOD, FOLD_NORM)
    assert are_cached() == {False}
    assert are_cached() == {True}
    install(GOOD, FOLD_NORM, version="1.1")
    assert are_cached() == {False}
    install(GOOD + "\n# changed without a new version\n", FOLD_NORM, version="1.1")
    assert are_cached() == {False}


def test_a_helper_beside_the_pass_is_part_of_its_code(install, tmp_path):
    place = install("", {NAME: "FoldNorm"}, module="unused")
    package = place / MODULE
    package.mkdir()
    (package / "__init__.py").write_text(GOOD)
    (package / "helper.py").write_text("")
    entry_points = next(place.glob("*.dist-info")) / "entry_points.txt"
    entry_points.write_text(entry_points.read_text().replace("unused:", f"{MODULE}:"))

    def digest():
        (made,) = choose_passes([NAME])
        return made.origin.code

    first = digest()
    assert digest() == first
    (package / "helper.py").write_text("changed = True\n")
    assert digest() != first


BROKEN = {
    "no such attribute": ("", {NAME: "FoldNorm"}, "does not load: AttributeError"),
    "raises at import": ("raise ValueError('no licence')", FOLD_NORM, "ValueError: no licence"),
    "not a class": ("FoldNorm = 3", FOLD_NORM, "is acme_passes:FoldNorm, which is no pass"),
    "another class": ("class FoldNorm: pass", FOLD_NORM, "which is no pass"),
    "another name": (GOOD, {"norm-fold": "FoldNorm"}, "calls itself 'fold-norm'"),
    "unfinished": (GOOD.replace("def check", "def checks"), FOLD_NORM, "TypeError: .*abstract"),
    "promises nothing": (
        GOOD.replace("def expect", "def counts"),
        FOLD_NORM,
        "does not declare how often it fires",
    ),
    "wants arguments": (
        GOOD.replace("    def check", "    def __init__(self, level): pass\n\n    def check"),
        FOLD_NORM,
        "TypeError: .*level",
    ),
}


@pytest.mark.parametrize(("code", "passes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_pass_is_named_and_harms_no_other(install, code, passes, message):
    install(code, passes)
    install(GOOD.replace("fold-norm", "sound"), {"sound": "FoldNorm"}, name="sound", module="sound")
    (broken,) = passes
    with pytest.raises(PassError, match=f"the pass '{broken}' of acme-passes 1.0 .*{message}"):
        choose_passes([broken])
    with pytest.warns(PassWarning, match=f"left out: the pass '{broken}' of acme-passes 1.0 "):
        assert [each.name for each in make_all_passes()] == [*pass_names(), "sound"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [each.name for each in choose_passes(["sound"])] == ["sound"]


def test_a_name_of_ours_is_refused(install):
    install(GOOD.replace("fold-norm", "merge-qkv"), {"merge-qkv": "FoldNorm"})
    for make in (lambda: choose_passes(["merge-qkv"]), make_all_passes):
        with pytest.warns(PassWarning, match="'merge-qkv' of acme-passes 1.0 is refused"):
            passes = make()
        assert all(each.origin is None for each in passes)


def test_a_name_that_is_registered_twice_is_refused(install):
    install(GOOD, FOLD_NORM)
    install(GOOD, FOLD_NORM, name="other-passes", version="2.0", module="other_passes")
    with pytest.raises(PassError, match=r"by acme-passes 1\.0 and by other-passes 2\.0"):
        choose_passes([NAME])
    with pytest.warns(PassWarning, match="uninstall all but one"):
        assert [each.name for each in make_all_passes()] == list(pass_names())


WRONG = {
    "fewer than promised": (
        write_pass(expected=str(BLOCKS + 1)),
        rf"the pass fold-norm of acme-passes 1\.0 rewrote {BLOCKS} places of UNet2DCondition",
    ),
    "crashes": (
        write_pass("layer.norm4.weight"),
        r"the pass fold-norm of acme-passes 1\.0 failed on UNet2DConditionModel: AttributeError",
    ),
    "forgets a source": (
        write_pass(
            "with LazyGuard():\n            layer.more = nn.Linear(2, 2)\n        return {}"
        ),
        r"fold-norm of acme-passes 1\.0 has no derivation for .*more\.bias",
    ),
    "names no weight": (
        write_pass('return {"norm9.weight": "norm3.weight"}'),
        r"fold-norm of acme-passes 1\.0 makes a weight .*norm9\.weight, which the network lacks",
    ),
    "reads what is not there": (
        write_pass('return {WEIGHT: "norm9.weight"}'),
        r"fold-norm of acme-passes 1\.0 makes .* of .*norm9\.weight, which is no weight of the",
    ),
    "names no operation": (
        write_pass('return {WEIGHT: Derivation((WEIGHT,), "acme.lost")}'),
        r"fold-norm of acme-passes 1\.0 has an invalid derivation for .*: "
        r"there is no operation 'acme",
    ),
    "gives parameters that are no JSON": (
        write_pass('return {WEIGHT: Derivation((WEIGHT,), f"{__name__}.spoil", {"by": (1, 2)})}'),
        r"1\.0 has an invalid derivation for .*: "
        r"the parameters of .*spoil are no JSON values: .*\(1, 2",
    ),
    "makes another shape": (
        write_pass('return {WEIGHT: "norm3.weight"}'),
        r"fold-norm of acme-passes 1\.0 fails its check on denoiser: .*shape",
    ),
    "changes the numbers": (
        write_pass('return {WEIGHT: Derivation((WEIGHT,), f"{__name__}.spoil")}'),
        r"fold-norm of acme-passes 1\.0 fails its check on denoiser: .* differs from the Paddle l",
    ),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_what_it_does_wrong_is_its_own_fault(install, tiny_sd1, code, message):
    install(code, FOLD_NORM)
    pipeline = open_pipeline(tiny_sd1, ["merge-qkv", NAME])
    with pytest.raises(PassError, match=message):
        pipeline.build()


GRAPH_PASS = """
from fastdeploy_diffusion.models.unet import UNet2DConditionModel
from fastdeploy_diffusion.passes.graph_pass import GraphPass, GraphRule


class Rule(GraphRule):
    def pattern(self, op, x):
        return op.Softmax(x, axis=-1)

    def rewrite(self, op, x):
        return op.Mul(op.Exp(op.LogSoftmax(x, axis=-1)), op.Constant(value_float=FACTOR))


class Scale(GraphPass):
    name = "scale-softmax"

    def make_rules(self, dialect):
        return [Rule()]

    def expect(self, network):
        return EXPECTED if isinstance(network, UNet2DConditionModel) else None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "expected", "message"),
    [
        ("1.0", 8, ""),
        ("1.0", 9, r"scale-softmax of acme-passes 1\.0 rewrote 8 places of denoiser"),
        ("0.5", 8, r"scale-softmax of acme-passes 1\.0 fails its check on text_encoder"),
    ],
)
def test_a_graph_pass_is_checked_like_a_layer_pass(
    install,
    tiny_sd1,
    factor,
    expected,
    message,
):
    code = GRAPH_PASS.replace("FACTOR", factor).replace("EXPECTED", str(expected))
    install(code, {"scale-softmax": "Scale"})
    pipeline = open_pipeline(tiny_sd1, ["scale-softmax"], engine="onnxruntime", cache=False)
    if message:
        with pytest.raises(PassError, match=message):
            pipeline.build()
    else:
        counts = {each.name: each.passes["scale-softmax"] for each in pipeline.build().components}
        assert counts == {"text_encoder": 2, "denoiser": 8, "vae_decoder": 1}
    pipeline.close()


@pytest.mark.slow
def test_an_engine_is_not_blamed_for_a_pass(install, tiny_sd1):
    code, message = WRONG["makes another shape"]
    install(code, FOLD_NORM)
    pipeline = open_pipeline(tiny_sd1, ["merge-qkv", NAME], engine="openvino", cache=False)
    with pytest.raises(PassError, match=message):
        pipeline.build()


@pytest.mark.parametrize(
    "error", ["MemoryError('no room')", "RuntimeError('(ResourceExhausted) no room')"]
)
def test_a_pass_is_not_blamed_for_too_little_memory(error, install, tiny_sd1):
    install(write_pass(f"raise {error}"), FOLD_NORM)
    with pytest.raises(ResourceError, match="no room"):
        open_pipeline(tiny_sd1, [NAME]).build()


def test_a_pass_goes_on_from_what_an_earlier_one_has_made(install, tiny_sd1):
    again = write_pass("return {BIAS: BIAS}")
    again = again.replace("FoldNorm", "Again").replace('"fold-norm"', '"again"')
    again = again.replace("layer.norm3.weight is not None", "True")
    install(GOOD + again, {**FOLD_NORM, "again": "Again"})
    report = open_pipeline(tiny_sd1, [NAME, "again"]).build().components[1]
    assert report.passes == {NAME: BLOCKS, "again": BLOCKS}


def test_a_config_knows_the_registered_names(install, tiny_sd1):
    with pytest.raises(ConfigError, match="passes is"):
        DiffusionConfig(model_path=tiny_sd1, passes=[NAME])
    install(GOOD, FOLD_NORM)
    assert DiffusionConfig(model_path=tiny_sd1, passes=[NAME]).passes == (NAME,)
    with pytest.raises(ConfigError, match="did you mean 'fold-norm'") as caught:
        DiffusionConfig(model_path=tiny_sd1, passes=["fold-nrom"])
    assert f"{pass_names()[-1]}, fold-norm" in caught.value.allowed
    with pytest.raises(ConfigError, match="did you mean 'fold-norm'"):
        choose_passes(["fold-nrom"])
