"""Files of prompts on the command line: what is drawn, what is left, and what is refused first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.images import read_settings
from fastdeploy_diffusion.predictors.diffusion import DiffusionPredictor

QUICK = ("--engine", "paddle-eager", "--scheduler", "ddim", "--steps", 2)
TABLE = """\
prompt,seed,width,negative_prompt
a red circle,5-6,,
"a star, large",9,48,blue
a ring,,48,
"""


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DiffusionPredictor, "choose_batch", lambda self, request: 2)


@pytest.fixture
def draw(tiny_sd1):
    def draw_file(name, *words, **options):
        return run("generate", "--prompts", name, "--model", tiny_sd1, *QUICK, *words, **options)

    return draw_file


@pytest.fixture(scope="module")
def drawn(tiny_sd1, tmp_path_factory):
    """A folder of the table's pictures, and what the command printed as JSON."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "a.csv").write_text(TABLE)
    words = ("--prompts", folder / "a.csv", "--model", tiny_sd1, "-o", folder / "new/out", "--json")
    return folder / "new/out", json.loads(run("generate", *words, *QUICK, "--height", 24).stdout)


@pytest.fixture
def again(drawn, draw):
    """Draw the table again into a copy of its pictures, without some of them."""

    def draw_again(*missing, words=(), code=0, table=TABLE):
        Path("a.csv").write_text(table)
        shutil.copytree(drawn[0], "out")
        for name in missing:
            Path("out", name).unlink()
        words = ("-o", "out", "--height", 24, "--json", *words)
        result = draw("a.csv", *words, code=code)
        return json.loads(result.stdout) if code == 0 else result.stderr

    return draw_again


NAMES = ["output-1-1.png", "output-1-2.png", "output-2.png", "output-3.png"]


def test_rows_are_drawn_as_the_library_draws_them(drawn, tiny_sd1):
    folder, shown = drawn
    files = [Path(each["file"]) for each in shown["images"]]
    assert [file.name for file in files] == sorted(each.name for each in folder.iterdir()) == NAMES
    assert (shown["skipped"], shown["grid"]) == ([], None)
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler="ddim")
    pipeline = SDPipeline(config)
    for file in files:
        image = pipeline.text_to_image(**read_settings(file))
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(image))
        assert read_settings(file) == read_settings(image)
    settings = [read_settings(file) for file in files]
    assert [each["seed"] for each in settings[:3]] == [5, 6, 9]
    assert [each.get("negative_prompt") for each in settings] == [None, None, "blue", None]
    assert [(each["width"], each["height"]) for each in settings] == [(32, 24)] * 2 + [(48, 24)] * 2


def test_an_interrupted_command_goes_on_when_it_is_given_again(again, drawn):
    before = {name: Path(drawn[0], name).read_bytes() for name in NAMES}
    shown = again("output-1-2.png", "output-3.png")
    assert [Path(each["file"]).name for each in shown["images"]] == [NAMES[1], NAMES[3]]
    assert [Path(each).name for each in shown["skipped"]] == [NAMES[0], NAMES[2]]
    for name in (NAMES[0], NAMES[2]):
        assert Path("out", name).read_bytes() == before[name]
    np.testing.assert_array_equal(
        np.asarray(Image.open(f"out/{NAMES[1]}")), np.asarray(Image.open(drawn[0] / NAMES[1]))
    )


def test_nothing_is_drawn_where_all_is_there(again, draw, monkeypatch):
    def fail(*arguments):
        raise AssertionError("nothing is to be drawn")

    monkeypatch.setattr(DiffusionPredictor, "stream", fail)
    shown = again()
    assert (shown["images"], len(shown["skipped"])) == ([], 4)
    text = draw("a.csv", "-o", "out", "--height", 24).stdout
    assert text == "drawn: 0; there already, and skipped: 4\n"


def test_a_seed_that_is_left_open_is_gone_on_with(draw):
    Path("a.txt").write_text("a star")
    first = json.loads(draw("a.txt", "--images", 3, "--json").stdout)["images"]
    seed = first[0]["seed"]
    assert [each["seed"] for each in first] == [(seed + index) % 2**64 for index in range(3)]
    Path("output-1-1.png").unlink()
    Path("output-1-3.png").unlink()
    second = json.loads(draw("a.txt", "--images", 3, "--json").stdout)["images"]
    assert [each["seed"] for each in second] == [first[0]["seed"], first[2]["seed"]]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (",9,", ",8,", "a.csv, line 3: out/output-2.png exists already, and is not what the row"),
        (",9,", ",8,", "its seed is 9, and would be 8"),
        ("blue", "red", "its negative_prompt is 'blue', and would be 'red'"),
        ("blue", "", "its negative_prompt is 'blue', and would be left out"),
        ("a ring,", "a ring of gold,", "line 4: out/output-3.png exists already"),
    ],
)
def test_another_picture_is_refused(again, old, new, problem):
    error = again(NAMES[0], table=TABLE.replace(old, new), code=2)
    assert problem in error
    assert "fix: choose another --output, or add --overwrite" in error
    assert not Path("out", NAMES[0]).exists()  # nothing is drawn before all rows are checked


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--scheduler", "euler"), "its scheduler is 'DDIMScheduler', and would be"),
        (("--steps", 3), "its num_inference_steps is 2, and would be 3"),
    ],
)
def test_pictures_of_other_options_are_refused(again, words, problem):
    assert problem in again(words=words, code=2)


def test_a_strange_file_is_refused(again, draw):
    again()
    Path("out/output-2.png").write_bytes(Path("a.csv").read_bytes())
    error = draw("a.csv", "-o", "out", "--height", 24, code=2).stderr
    assert "out/output-2.png exists already, and is not what the row asks for" in error


def test_overwrite_replaces_what_is_not_the_rows(again):
    shown = again(words=("--overwrite",), table=TABLE.replace(",9,", ",8,"))
    assert [(Path(each["file"]).name, each["seed"]) for each in shown["images"]] == [
        ("output-2.png", 8)
    ]
    assert len(shown["skipped"]) == 3
    assert read_settings("out/output-2.png")["seed"] == 8


def test_what_ends_early_leaves_whole_pictures_and_says_how_to_go_on(draw, monkeypatch):
    Path("a.txt").write_text("one\ntwo\nthree\n")
    stream = DiffusionPredictor.stream

    def interrupt_late(self, request):
        if Path("out/output-2.png").exists():
            raise KeyboardInterrupt
        return stream(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionPredictor, "stream", interrupt_late)
        result = draw("a.txt", "-o", "out", "--seed", 1, code=130)
    assert result.stderr.splitlines() == [
        "saved 2 of 3 pictures: out/output-1.png to out/output-2.png",
        "the same command goes on with the others",
        "interrupted",
    ]
    assert sorted(map(str, Path("out").iterdir())) == ["out/output-1.png", "out/output-2.png"]
    assert draw("a.txt", "-o", "out", "--seed", 1).stdout.endswith(
        "\ndrawn: 1; there already, and skipped: 2\n"
    )


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        ("prompt,width\nx,32\ny,33\n", (), "a.csv, line 3: width is 33"),
        ("prompt,width\nx,wide\n", (), "a.csv, line 2: width is 'wide'"),
        (
            "prompt,image,strength\nx,,\ny,none.png,0.5",
            (),
            "a.csv, line 3: image is 'none.png', no",
        ),
        ("prompt,control_image\ny,none.png\n", (), "a.csv, line 2: control_image"),
        ("prompt,num_images_per_prompt\nx,0\n", (), "a.csv, line 2: num_images_per_prompt is 0"),
        ("prompt,seed\nx,1-100000\ny,\n", (), "a.csv, line 3: there are too many pictures"),
        (f"prompt,seed\nx,{2**64}\n", (), "a.csv, line 2: the seed"),
        ("seed\n1\n", (), "a.csv, line 2: the row has no prompt"),
        ("prompt\nx\n", ("PROMPT",), "PROMPT has no effect: all rows of a.csv"),
        ("prompt\nx\n", ("--grid",), "--grid has no effect on one picture"),
        ("prompt,width\nx,32\ny,48\n", ("--grid",), "line 3: the picture is 48 x 32, and that of"),
        ("prompt\nx\n", ("--true-cfg-scale", 4), "--true-cfg-scale 4.0 has no effect"),
        ("prompt\nx\n", ("-o", "none/a.png"), "there is no folder none"),
    ],
)
def test_what_a_row_may_not_be_is_refused_before_anything_is_drawn(draw, text, words, problem):
    Path("a.csv").write_text(text)
    assert problem in draw("a.csv", *words, code=2).stderr
    assert list(Path().iterdir()) == [Path("a.csv")]


def test_a_prompt_is_that_of_rows_without_one(draw):
    Path("a.jsonl").write_text('{"seed": "1-2"}\n{"prompt": "a ring"}\n')
    shown = json.loads(draw("a.jsonl", "a star", "--seed", 7, "-o", "x.webp", "--json").stdout)
    found = [(Path(each["file"]).name, each["prompt"], each["seed"]) for each in shown["images"]]
    assert found == [
        ("x-1-1.webp", "a star", 1),
        ("x-1-2.webp", "a star", 2),
        ("x-2.webp", "a ring", 7),
    ]


def test_a_grid_shows_all_rows_once_all_are_there(draw):
    Path("a.txt").write_text("one\ntwo\nthree\n")
    words = ("a.txt", "--seed", 1)
    draw(*words)
    Path("output-2.png").unlink()
    pictures = [f"output-{number}.png" for number in (1, 2, 3)]
    assert draw(*words, "--grid").stdout.splitlines()[-2] == "output-grid.png: all 3 pictures"
    grid = np.asarray(Image.open("output-grid.png"))
    for index, file in enumerate(pictures):
        row, column = divmod(index, 2)
        cell = grid[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        np.testing.assert_array_equal(cell, np.asarray(Image.open(file)))
    assert draw(*words, "--grid").stdout.splitlines()[0] == "output-grid.png: all 3 pictures"
    Path("output-2.png").unlink()
    error = draw(*words, "--grid", code=2).stderr
    assert "output-grid.png exists already, and shows other pictures" in error


def test_long_prompts_are_drawn_as_alone(draw, tiny_sd1):
    long = " ".join(["star"] * 60 + ["ring"] * 60)
    Path("a.txt").write_text(f"a star\n{long}\n")
    draw("a.txt", "--seed", 1, "--prompt-syntax", "weighted")
    config = DiffusionConfig(model_path=tiny_sd1, engine="paddle-eager", scheduler="ddim")
    alone = SDPipeline(config).text_to_image(**read_settings("output-1.png"))
    np.testing.assert_array_equal(np.asarray(Image.open("output-1.png")), np.asarray(alone))
