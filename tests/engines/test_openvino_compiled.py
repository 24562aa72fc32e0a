"""Compiled models of small networks, kept for later starts."""

from dataclasses import replace

import numpy as np
import openvino
import pytest
from engine_programs import Case, ConvBlock, draw_feeds, draw_parameters, float_spec
from runnable import spec_for

from fastdeploy_diffusion.engines import openvino_compiled, openvino_model
from fastdeploy_diffusion.engines.registry import create_engine
from fastdeploy_diffusion.runtime.cache import COMPILED, CacheWarning

CASE = Case(
    lambda: ConvBlock(8),
    (float_spec("sample", None, 8, 4, 4), float_spec("embedding", None, 8)),
    (float_spec("output", None, 8, 4, 4),),
)
ENGINE = create_engine("openvino")


@pytest.fixture
def start(tmp_path):
    """Build once, and start as often as asked, with weights of a seed; each start runs a batch."""

    def start(batch=2, seed=7, **options):
        program, folder = CASE.program("block"), tmp_path / "build"
        draw_parameters(program.layer, seed=seed)
        spec = replace(spec_for("openvino"), notes=tmp_path, **options)
        if not folder.exists():
            folder.mkdir()
            ENGINE.build(program, spec, folder)
        with ENGINE.load(program, spec, folder) as session:
            return session.run(**draw_feeds(CASE, batch, free=batch))["output"]

    return start


@pytest.fixture
def compilations(monkeypatch):
    """The shapes of what OpenVINO compiles."""
    made, compile_model = [], openvino.Core.compile_model

    def compile_and_tell(core, model, *given, **named):
        made.append(model.inputs[0].shape)
        return compile_model(core, model, *given, **named)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_and_tell)
    return made


def list_kept(tmp_path):
    return sorted((tmp_path / COMPILED).glob("*"))


def test_a_second_start_compiles_nothing_and_computes_the_same(start, compilations, tmp_path):
    first = start()
    assert (len(compilations), len(list_kept(tmp_path))) == (1, 1)
    np.testing.assert_array_equal(start(), first)
    assert len(compilations) == 1


@pytest.mark.parametrize("other", [{"batch": 3}, {"threads": 3}, {"seed": 1}])
def test_other_shapes_threads_and_weights_are_compiled(other, start, compilations):
    first = start()
    changed = start(**other)
    assert len(compilations) == 2
    if "seed" in other:
        assert np.abs(changed - first).max() > 1e-3
    np.testing.assert_array_equal(start(), first)
    np.testing.assert_array_equal(start(**other), changed)
    assert len(compilations) == 2


@pytest.mark.parametrize("at", [0, 100, -1])
def test_a_damaged_one_is_made_again_with_a_warning(at, start, compilations, tmp_path):
    first = start()
    (file,) = list_kept(tmp_path)
    whole = file.read_bytes()
    spoiled = bytearray(whole)
    spoiled[at] ^= 1
    file.write_bytes(spoiled)
    with pytest.warns(CacheWarning, match="it has changed"):
        np.testing.assert_array_equal(start(), first)
    assert len(compilations) == 2
    np.testing.assert_array_equal(start(), first)
    assert len(compilations) == 2


def test_one_that_openvino_refuses_is_made_again_with_a_warning(
    start, compilations, monkeypatch, tmp_path
):
    def refuse(*given):
        raise RuntimeError("of another plugin")

    first = start()
    monkeypatch.setattr(openvino.Core, "import_model", refuse)
    with pytest.warns(CacheWarning, match="another plugin"):
        again = start()
    np.testing.assert_array_equal(again, first)
    assert (len(compilations), len(list_kept(tmp_path))) == (2, 1)


def test_large_networks_are_not_kept(start, monkeypatch, tmp_path):
    monkeypatch.setattr(openvino_model, "MOST_WEIGHTS", 100)
    start()
    assert list_kept(tmp_path) == []


def test_those_used_the_longest_ago_go_first(start, monkeypatch, tmp_path):
    start()
    (first,) = list_kept(tmp_path)
    monkeypatch.setattr(openvino_compiled, "KEPT_BYTES", int(1.5 * first.stat().st_size))
    start(batch=3)
    assert len(list_kept(tmp_path)) == 1
    assert first not in list_kept(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_error(start, tmp_path):
    (tmp_path / COMPILED).write_text("no folder")
    np.testing.assert_array_equal(start(), start())
