"""Files of prompts: what is read of each kind, and which line an error names."""

import pytest

from fastdeploy_diffusion import GenerationRequest
from fastdeploy_diffusion.errors import RequestError, ResourceError
from fastdeploy_diffusion.requests.flux_request import FluxRequest
from fastdeploy_diffusion.requests.prompt_file import MOST_ROWS, read_prompt_file


@pytest.fixture
def read(tmp_path):
    """Write a file, and read the lines and settings of its rows."""

    def write_and_read(name, content, *request_class):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [(row.line, dict(row.settings)) for row in read_prompt_file(path, *request_class)]

    return write_and_read


@pytest.mark.parametrize("name", ["a.txt", "A.TXT", "prompts"])
def test_a_text_has_a_prompt_a_line(read, name):
    text = '\ufeffa red circle\r\n\r\n# a note\r\n  白色, a "star"\t\r\none\u2028line'
    assert read(name, text) == [
        (1, {"prompt": "a red circle"}),
        (4, {"prompt": '白色, a "star"'}),
        (5, {"prompt": "one\u2028line"}),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_has_settings_of_their_types(read, end):
    lines = [
        "\ufeffprompt, seed,strength,overlay,timesteps,controlnet_conditioning_scale,image",
        '"a ""red"" star, large",-5,0.5,True,"[9, 5]","[1, 0.5]", a b.png',
        ",,,,,,",
        "",
        '"two\nlines",3,,,,2,',
    ]
    assert read("a.csv", end.join(lines)) == [
        (
            2,
            {
                "prompt": 'a "red" star, large',
                "seed": -5,
                "strength": 0.5,
                "overlay": True,
                "timesteps": [9, 5],
                "controlnet_conditioning_scale": [1, 0.5],
                "image": "a b.png",
            },
        ),
        (5, {"prompt": "two\nlines", "seed": 3, "controlnet_conditioning_scale": 2.0}),
    ]


def test_objects_have_settings(read):
    text = '{"prompt": "", "seed": 1}\n\n{"prompt": "x", "width": null, "timesteps": [3, 1]}\n'
    expected = [(1, {"prompt": "", "seed": 1}), (3, {"prompt": "x", "timesteps": [3, 1]})]
    assert read("a.jsonl", text) == read("a.ndjson", text) == expected


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", "seed\n3-6"), ("a.jsonl", '{"seed": "3..6"}')]
)
def test_a_range_of_seeds_is_a_number_of_pictures(read, name, text):
    ((_, settings),) = read(name, text)
    assert settings == {"seed": 3, "num_images_per_prompt": 4}


def test_settings_are_those_of_a_family(read):
    text = "prompt,true_cfg_scale\nx,4"
    assert read("a.csv", text, FluxRequest) == [(2, {"prompt": "x", "true_cfg_scale": 4.0})]
    with pytest.raises(RequestError, match=r"^a\.csv, line 1: unknown column 'true_cfg_scale'"):
        read("a.csv", text)


def test_a_row_is_a_request(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,guidance_scale\nx,3")
    (row,) = read_prompt_file(str(tmp_path / "a.csv"))
    assert GenerationRequest(**row.settings) == GenerationRequest(prompt="x", guidance_scale=3.0)
    for kind in (RequestError, ResourceError):
        with (
            pytest.raises(kind, match=r"^a\.csv, line 2: too much\n  allowed: less"),
            row.tell_place(),
        ):
            raise kind("too much", allowed="less")


def test_values_that_fit_no_type_are_left_to_the_request(read):
    text = "prompt,width,strength,overlay,timesteps\nx,1.5,a lot,yes,[3"
    ((_, settings),) = read("a.csv", text)
    assert settings == {
        "prompt": "x", "width": "1.5", "strength": "a lot", "overlay": "yes", "timesteps": "[3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "problem", "fix"),
    [
        ("a.csv", "prompt,steps\n", "a.csv, line 1: unknown column 'steps'", "num_inference_steps"),
        ("a.csv", "\nprompt,sede\n", "a.csv, line 2: unknown column 'sede'", "'seed'"),
        ("a.csv", "prompt,latents", "unknown column 'latents'", ""),
        ("a.csv", "prompt,lora", "unknown column 'lora'", "load_lora"),
        ("a.csv", "seed,prompt,seed\n", "line 1: the column 'seed' is there twice", ""),
        ("a.csv", "prompt,\nx,", "line 1: column 2 has no name", ""),
        ("a.csv", "prompt;seed\nx;1", "line 1: the header has one column, with ';'", "commas"),
        ("a.csv", "prompt\tseed\n", "line 1: the header has one column, with '\\t'", "commas"),
        ("a.csv", "prompt\n\na, b\n", "line 3: the row and the header have 2 and 1 cells", "quote"),
        ("a.csv", "prompt,seed\nx\n", "line 2: the row and the header have 1 and 2 cells", ""),
        ("a.csv", 'prompt\n"a" b\n', "line 2: the row cannot be read", ""),
        ("a.csv", 'prompt\n"a\nb', "line 2: the row cannot be read", ""),
        ("a.csv", "prompt\n" + "a" * 200_000, "line 2: the row cannot be read", ""),
        ("a.csv", "prompt,seed\nx,one\n", "line 2: seed is 'one'", ""),
        ("a.csv", "prompt,seed\nx,8-1\n", "line 2: seed is '8-1'", "seed 1-8"),
        ("a.csv", "prompt,seed,num_images_per_prompt\nx,1-8,2", "are 8 pictures, and", "leave"),
        ("a.jsonl", '{"prompt": "x"}\n{"a', "a.jsonl, line 2: the line is not JSON", ""),
        ("a.jsonl", '{"prompt": "x", "sed": 1}', "line 1: unknown key 'sed'", "'seed'"),
        ("a.jsonl", '{"prompt": "x", "prompt": "y"}', "the key 'prompt' is there twice", ""),
        ("a.jsonl", '{"prompt": ["x", "y"]}', "prompt is ['x', 'y']", ""),
        ("a.jsonl", '{"prompt": "x", "seed": [1, 2]}', "seed is [1, 2]", ""),
        ("a.jsonl", '["x"]', "line 1: the line holds ['x']", ""),
        ("a.jsonl", '{"prompt": "\\ud83d"}', "line 1: the line is not JSON", ""),
        ("a.jsonl", '{"eta": NaN}', "NaN is no number of JSON", ""),
        ("a.jsonl", "[" * 100_000, "line 1: the line is not JSON", ""),
        ("a.txt", "", "a.txt has no prompts", ""),
        ("a.txt", "\ufeff\n# x\n", "a.txt has no prompts", ""),
        ("a.csv", "prompt,seed\n", "a.csv has no prompts", ""),
        ("a.txt", "x\né".encode("latin-1"), "a.txt, line 2, is not UTF-8", "iconv -t utf-8"),
        ("a.txt", "é".encode("utf-16"), "a.txt, line 1, is not UTF-8", "iconv -f utf-16"),
        ("a.json", "[]", "a.json is no file of prompts by its name", "jq -c"),
        ("a.md", "x", "a.md is no file of prompts by its name", ""),
        ("a.txt", "a red circle\n" * 10**6, "a.txt has too many rows", "split it"),
        ("a.txt", b" " * (1 << 26) + b"x", "a.txt is too large", "split it"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_line(read, name, content, problem, fix):
    with pytest.raises(RequestError) as caught:
        read(name, content)
    assert problem in caught.value.problem
    assert fix in caught.value.fix


def test_as_many_rows_as_allowed_are_read(read):
    assert len(read("a.txt", "x\n" * MOST_ROWS)) == MOST_ROWS


@pytest.mark.parametrize("name", ["none.txt", ".", "nul\0.txt"])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(RequestError, match="cannot be read"):
        read_prompt_file(f"{tmp_path}/{name}")
