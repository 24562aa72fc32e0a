"""Export to PIR: what is written, what is refused, and that the layer stays as it was."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from drawn_parameters import draw_parameters

from fastdeploy_diffusion.engines.paddle_layer import run_layer
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.pir import PROGRAM_FILE, WEIGHTS_FILE, export_program
from fastdeploy_diffusion.paddle_runtime import paddle
from fastdeploy_diffusion.runtime.manifest import MANIFEST_FILE, check_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec

nn = paddle.nn


class Scaler(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, sample, scale):
        return self.dropout(self.linear(sample)) * scale


def make_program(layer=None, inputs=("sample", "scale"), outputs=("scaled",)):
    if layer is None:
        layer = Scaler()
        draw_parameters(layer)
    layer.eval()
    return Program(
        "scaler",
        layer,
        tuple(TensorSpec(name, (2, 4), "float32") for name in inputs),
        tuple(TensorSpec(name, (2, 4), "float32") for name in outputs),
    )


def test_program_weights_and_manifest_are_written(tmp_path):
    program = make_program()
    path = export_program(program, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / PROGRAM_FILE
    assert {file.name for file in path.parent.iterdir()} == {
        PROGRAM_FILE,
        WEIGHTS_FILE,
        MANIFEST_FILE,
    }
    check_manifest(program, path.parent)


def test_weights_are_the_same_file_for_every_size(tmp_path):
    """Paddle numbers parameters through the whole process, and saves them by name."""
    written = []
    for size, number in ((2, 9), (5, 1)):  # the second layer's numbers have another digit
        for _ in range(number):
            nn.Linear(1, 1)
        program = make_program(nn.Sequential(*(nn.Linear(4, 4) for _ in range(12))), ("input",))
        names = [each.name for each in program.layer.parameters()]
        spec = TensorSpec("input", (size, 4), "float32")
        program = replace(program, inputs=(spec,), outputs=(replace(spec, name="scaled"),))
        draw_parameters(program.layer)
        path = export_program(program, tmp_path / str(size))
        written.append((path.parent / WEIGHTS_FILE).read_bytes())
        assert [each.name for each in program.layer.parameters()] == names
    assert written[0] == written[1]


def test_the_layer_is_not_changed(tmp_path):
    program = make_program()
    attributes, forward = set(vars(program.layer)), program.layer.forward
    feeds = {name: np.ones((2, 4), np.float32) for name in ("sample", "scale")}
    before = run_layer(program, feeds)["scaled"]
    export_program(program, tmp_path)
    assert set(vars(program.layer)) == attributes
    assert program.layer.forward == forward
    assert paddle.in_dynamic_mode()
    np.testing.assert_array_equal(run_layer(program, feeds)["scaled"], before)


class Paused(Scaler):
    """Stays in its forward until it may leave."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.may_leave = threading.Event(), threading.Event()

    def forward(self, sample, scale):
        self.entered.set()
        assert self.may_leave.wait(20)
        return super().forward(sample, scale)


FEEDS = {name: np.ones((2, 4), np.float32) for name in ("sample", "scale")}


def export_to(folder):
    return lambda program: export_program(program, folder / program.name)


def run_once(folder):
    return lambda program: run_layer(program, FEEDS)["scaled"].shape


@pytest.mark.parametrize("first", [export_to, run_once], ids=["a trace", "a run"])
@pytest.mark.parametrize("second", [export_to, run_once], ids=["a trace", "a run"])
def test_traces_and_runs_of_layers_take_turns(first, second, tmp_path):
    if first is second is run_once:
        pytest.skip("runs in eager mode do not disturb each other")
    paused = make_program(Paused())
    other = replace(make_program(), name="other")
    done = {}

    def work(task, program):
        done[program.name] = task(tmp_path)(program)

    threads = [
        threading.Thread(target=work, args=(first, paused)),
        threading.Thread(target=work, args=(second, other)),
    ]
    threads[0].start()
    assert paused.layer.entered.wait(20)
    threads[1].start()
    threads[1].join(0.2)  # time enough, if it did not wait
    assert done == {}
    paused.layer.may_leave.set()
    for thread in threads:
        thread.join()
    assert done.keys() == {"scaler", "other"}
    assert run_layer(make_program(), FEEDS)["scaled"].shape == (2, 4)


def test_an_earlier_export_is_replaced(tmp_path):
    class Plain(nn.Layer):
        def forward(self, sample, scale):
            return sample * scale

    export_program(make_program(), tmp_path)
    program = make_program(Plain())
    export_program(program, tmp_path)
    assert not (tmp_path / WEIGHTS_FILE).exists()
    check_manifest(program, tmp_path)


def test_a_layer_in_training_mode_is_refused(tmp_path):
    program = make_program()
    program.layer.dropout.train()
    with pytest.raises(EngineError, match=r"training mode \(dropout\)[^$]*layer.eval\(\)"):
        export_program(program, tmp_path)
    assert not list(tmp_path.iterdir())


def test_random_numbers_are_refused(tmp_path):
    class Noisy(nn.Layer):
        def forward(self, sample, scale):
            return sample + scale * paddle.randn([2, 4])

    with pytest.raises(EngineError, match=r"draws random numbers \(gaussian\)"):
        export_program(make_program(Noisy()), tmp_path)
    assert not (tmp_path / MANIFEST_FILE).exists()


def test_an_input_that_is_not_used_is_refused(tmp_path):
    class Ignorant(nn.Layer):
        def forward(self, sample, scale):
            return sample * 2

    with pytest.raises(EngineError, match="scaler: Paddle cannot trace Ignorant"):
        export_program(make_program(Ignorant()), tmp_path)


def test_another_number_of_outputs_is_refused(tmp_path):
    with pytest.raises(EngineError, match="returns 1 tensors\n  allowed: scaled, extra"):
        export_program(make_program(outputs=("scaled", "extra")), tmp_path)


def test_an_error_in_the_layer_names_component_and_layer(tmp_path):
    class Broken(nn.Layer):
        def forward(self, sample, scale):
            raise KeyError("lost")

    with pytest.raises(EngineError, match=r"scaler: Paddle cannot trace Broken[^$]*lost"):
        export_program(make_program(Broken()), tmp_path)
    assert paddle.in_dynamic_mode()


@pytest.mark.parametrize("name", [PROGRAM_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["cut short", "removed"])
def test_a_damaged_export_is_refused(name, damage, tmp_path):
    program = make_program()
    export_program(program, tmp_path)
    file = tmp_path / name
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(EngineError, match=name):
        check_manifest(program, tmp_path)


def test_an_unfinished_export_is_refused(tmp_path):
    with pytest.raises(EngineError, match="unfinished or damaged"):
        check_manifest(make_program(), tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("[]")
    with pytest.raises(EngineError, match="no export manifest"):
        check_manifest(make_program(), tmp_path)


def test_another_programs_export_is_refused(tmp_path):
    program = make_program()
    export_program(program, tmp_path)
    wider = Program(
        program.name,
        program.layer,
        (*program.inputs[:-1], TensorSpec("scale", (2, 1), "float32")),
        program.outputs,
    )
    with pytest.raises(EngineError, match="has inputs"):
        check_manifest(wider, tmp_path)


def test_the_manifest_holds_the_signature(tmp_path):
    export_program(make_program(), tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert manifest["inputs"] == [["sample", [2, 4], "float32"], ["scale", [2, 4], "float32"]]
