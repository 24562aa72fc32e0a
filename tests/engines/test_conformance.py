"""The one suite that every engine passes: right numbers, no aliases, typed errors."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from engine_programs import CASES, draw_feeds
from runnable import DEVICES, runnable, skip_excused, spec_for

from fastdeploy_diffusion.device import Device
from fastdeploy_diffusion.engines.registry import create_engine, engine_names
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.paddle_runtime import paddle

every_engine = pytest.mark.parametrize("engine_name", runnable())


@pytest.fixture(scope="module")
def open_session(tmp_path_factory):
    """Load a case on an engine; every case is built once."""
    built = {}

    @contextmanager
    def open_built(engine_name, case_name):
        skip_excused(engine_name, case_name)
        case, engine = CASES[case_name], create_engine(engine_name)
        spec = spec_for(engine_name, threads=1)
        if (engine_name, case_name) not in built:
            folder = tmp_path_factory.mktemp("artifact")
            program = case.program(case_name.replace(" ", "_"))
            engine.build(program, spec, folder)
            built[engine_name, case_name] = program, folder
        program, folder = built[engine_name, case_name]
        with engine.load(program, spec, folder) as session:
            yield case, program, session

    return open_built


def run_reference(program, feeds):
    """Run the layer by hand, not through the library."""
    with paddle.no_grad():
        returned = program.layer(*(paddle.to_tensor(array) for array in feeds.values()))
    tensors = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip((spec.name for spec in program.outputs), tensors, strict=True))


def assert_close(given, wanted):
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        reference = tensor.numpy()
        assert given[name].shape == reference.shape
        assert given[name].dtype == reference.dtype
        error = np.abs(given[name].astype("float64") - reference.astype("float64")).max()
        assert error <= 1e-5 * np.abs(reference.astype("float64")).max(), (name, error)


@every_engine
@pytest.mark.parametrize("case_name", CASES)
def test_outputs_equal_the_layers(engine_name, case_name, open_session):
    with open_session(engine_name, case_name) as (case, program, session):
        for seed in (0, 1):
            feeds = draw_feeds(case, seed)
            assert_close(session.run(**feeds), run_reference(program, feeds))


@every_engine
def test_free_dimensions_take_every_size(engine_name, open_session):
    with open_session(engine_name, "free dimensions") as (case, program, session):
        feeds = [draw_feeds(case, size, free=size) for size in (1, 6, 3, 6)]
        given = [session.run(**each) for each in feeds]
        # Looked at after the last run: those of other sizes must not have changed them.
        for outputs, each in zip(given, feeds, strict=True):
            assert_close(outputs, run_reference(program, each))


@every_engine
def test_outputs_are_the_callers_own(engine_name, open_session):
    with open_session(engine_name, "text encoder") as (case, _, session):
        first = session.run(**draw_feeds(case, 0))
        kept = {name: array.copy() for name, array in first.items()}
        second = session.run(**draw_feeds(case, 1))
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])
            assert not np.array_equal(array, second[name])
            array[...] = 0.0
        again = session.run(**draw_feeds(case, 0))
        for name, array in again.items():
            np.testing.assert_array_equal(array, kept[name])


@every_engine
def test_feeds_may_be_views_and_in_any_order(engine_name, open_session):
    with open_session(engine_name, "attention") as (case, program, session):
        feeds = draw_feeds(case, 0)
        wanted = run_reference(program, feeds)
        views = {name: np.asfortranarray(array) for name, array in reversed(list(feeds.items()))}
        assert_close(session.run(**views), wanted)


@every_engine
def test_bound_inputs_are_used_copied_and_replaced(engine_name, open_session):
    with open_session(engine_name, "attention") as (case, _, session):
        feeds, others = draw_feeds(case, 0), draw_feeds(case, 1)
        wanted = session.run(**feeds)["output"]
        context = feeds["context"].copy()
        session.bind(context=context)
        context[...] = 0.0
        np.testing.assert_array_equal(session.run(sample=feeds["sample"])["output"], wanted)

        session.bind(context=others["context"])
        assert not np.array_equal(session.run(sample=feeds["sample"])["output"], wanted)
        with pytest.raises(EngineError, match="'context' is bound and fed"):
            session.run(**feeds)

        session.bind()
        np.testing.assert_array_equal(session.run(**feeds)["output"], wanted)


@every_engine
def test_sessions_in_threads_give_their_own_results(engine_name, open_session):
    names = ("decoder", "text encoder", "attention")
    failures = []

    def work(case, session, wanted):
        for seed in range(8):
            given = session.run(**draw_feeds(case, seed))
            for name, array in given.items():
                if not np.allclose(array, wanted[seed][name], rtol=0, atol=1e-5):
                    failures.append((case, seed))

    with (
        open_session(engine_name, names[0]) as first,
        open_session(engine_name, names[1]) as second,
        open_session(engine_name, names[2]) as third,
    ):
        threads = []
        for case, _, session in (first, second, third, first):  # the first one is shared
            wanted = [session.run(**draw_feeds(case, seed)) for seed in range(8)]
            threads.append(threading.Thread(target=work, args=(case, session, wanted)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@every_engine
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_in_an_output_are_an_error(engine_name, poison, open_session):
    with open_session(engine_name, "conv block") as (case, _, session):
        feeds = draw_feeds(case, 0)
        feeds["sample"][1, 2, 3, 4] = poison
        with pytest.raises(EngineError, match=r"conv_block: .*'output'.* NaN or infinity in"):
            session.run(**feeds)
        assert np.isfinite(session.run(**draw_feeds(case, 0))["output"]).all()


@every_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda feeds: feeds.pop("context"), "input 'context' was not given"),
        (lambda feeds: feeds.update(contxt=feeds["context"]), "unknown input 'contxt'"),
        (
            lambda feeds: feeds.update(context=feeds["context"].astype("float64")),
            r"'context' is float64 \(3, 11, 12\)\n  allowed: float32 \(3, 11, 12\)",
        ),
        (
            lambda feeds: feeds.update(context=feeds["context"][:, :-1]),
            r"'context' is float32 \(3, 10, 12\)",
        ),
        (lambda feeds: feeds.update(context=feeds["context"][0]), r"is float32 \(11, 12\)"),
        (
            lambda feeds: feeds.update(context=feeds["context"].tolist()),
            "is of type list",
        ),
        (
            lambda feeds: feeds.update(context=feeds["context"].astype(">f4")),
            r"'context' is >f4",
        ),
    ],
)
def test_wrong_feeds_are_typed_errors(engine_name, change, message, open_session):
    with open_session(engine_name, "attention") as (case, _, session):
        feeds = draw_feeds(case, 0)
        change(feeds)
        with pytest.raises(EngineError, match=message) as caught:
            session.run(**feeds)
        assert str(caught.value).startswith("attention: ")


@every_engine
def test_an_empty_free_dimension_is_refused(engine_name, open_session):
    with (
        open_session(engine_name, "free dimensions") as (case, _, session),
        pytest.raises(EngineError, match=r"allowed: float32 \(any, 16, any, any\)"),
    ):
        session.run(**draw_feeds(case, 0, free=0))


@every_engine
def test_wrong_constants_are_refused_when_bound(engine_name, open_session):
    with open_session(engine_name, "attention") as (case, _, session):
        feeds = draw_feeds(case, 0)
        with pytest.raises(EngineError, match="unknown input 'text'"):
            session.bind(text=feeds["context"])
        with pytest.raises(EngineError, match=r"'context' is float32 \(11, 12\)"):
            session.bind(context=feeds["context"][0])
        session.run(**feeds)


@every_engine
def test_close_ends_the_session_and_may_be_repeated(engine_name, open_session):
    with open_session(engine_name, "upsampler") as (case, _, session):
        session.close()
        session.close()
        with pytest.raises(EngineError, match="session is closed"):
            session.run(**draw_feeds(case, 0))
        with pytest.raises(EngineError, match="session is closed"):
            session.bind(sample=draw_feeds(case, 0)["sample"])


@every_engine
def test_the_signature_is_shown_in_order(engine_name, open_session):
    with open_session(engine_name, "attention") as (case, _, session):
        assert list(session.inputs.values()) == list(case.inputs)
        assert list(session.outputs.values()) == list(case.outputs)


@every_engine
def test_an_output_that_breaks_its_spec_is_an_error(engine_name, tmp_path):
    program = CASES["upsampler"].program("upsampler")
    wrong = replace(program.outputs[0], shape=(3, 8, 10, 10))
    program = replace(program, outputs=(wrong,))
    engine, spec = create_engine(engine_name), spec_for(engine_name, threads=1)

    def build_and_run():
        engine.build(program, spec, tmp_path)
        with engine.load(program, spec, tmp_path) as session:
            session.run(**draw_feeds(CASES["upsampler"], 0))

    # When it runs, or earlier: some compilers know the shapes of outputs beforehand.
    with pytest.raises(EngineError, match=r"is float32 \(3, 8, 10, 14\)"):
        build_and_run()


@pytest.mark.parametrize("engine_name", engine_names())
def test_probing_never_raises_and_says_what_is_missing(engine_name):
    engine = create_engine(engine_name)
    runs_on_cpus = engine_name not in DEVICES
    assert engine.probe_run(Device("cpu")).ok == runs_on_cpus
    assert engine.probe_build(Device("cpu")).ok == runs_on_cpus
    for device in (Device("gpu", 99), Device("xpu", 99)):
        available = engine.probe_run(device)
        assert not available.ok
        assert available.reason
        if device.kind not in engine.devices:
            assert engine.probe_build(device) == available


PROFILING = {"openvino", "onnxruntime"}


@every_engine
def test_what_operators_take_is_told_or_refused(engine_name, open_session):
    with open_session(engine_name, "text encoder") as (case, program, session):
        feeds = draw_feeds(case, 0)
        if engine_name not in PROFILING:
            with pytest.raises(EngineError, match=f"{engine_name} cannot measure its operators"):
                session.profile(**feeds)
            return
        started = time.perf_counter()
        operators = session.profile(**feeds)
        elapsed = time.perf_counter() - started
        kinds = {each.kind for each in operators}
        assert kinds & {"MatMul", "FullyConnected", "FusedMatMul"}
        assert 0 < sum(each.seconds for each in operators) < elapsed
        assert_close(session.run(**feeds), run_reference(program, feeds))  # it still runs
        with pytest.raises(EngineError, match="was not given"):
            session.profile()
