"""The prompts of a calibration: the package's own, and files of the user's."""

from pathlib import Path

import pytest

from fastdeploy_diffusion.compiler.calibration_prompts import read_prompts
from fastdeploy_diffusion.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "fastdeploy_diffusion" / "configs"


def write(folder, lines):
    path = folder / "prompts.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("path", [None, str(CONFIGS / "shapes-prompts.txt")])
def test_prompts_in_the_box_are_32_and_8_in_two_languages(path):
    prompts = read_prompts(path)
    assert (len(prompts.calibrating), len(prompts.held_out)) == (32, 8)
    assert not set(prompts.calibrating) & set(prompts.held_out)
    for part in (prompts.calibrating, prompts.held_out):
        assert any(prompt.isascii() for prompt in part)
        assert any(not prompt.isascii() for prompt in part)


def test_every_fifth_prompt_is_held_out_and_repeated_and_empty_lines_count_once(tmp_path):
    lines = ["a", "", "b ", "a", "c", "d", "e", "f"]
    prompts = read_prompts(write(tmp_path, lines))
    assert prompts.calibrating == ("a", "b", "c", "d", "f")
    assert prompts.held_out == ("e",)


def test_no_more_than_eight_are_held_out(tmp_path):
    prompts = read_prompts(write(tmp_path, map(str, range(1000))))
    assert prompts.held_out == tuple(str(5 * each + 4) for each in range(8))
    assert len(prompts.calibrating) == 992


def test_another_prompt_is_another_digest(tmp_path):
    one = read_prompts(write(tmp_path, "abcde"))
    assert one.digest == read_prompts(write(tmp_path, "abcde")).digest
    assert one.digest != read_prompts(write(tmp_path, "abcdf")).digest


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "has 0 prompts"),
        (["", "  "], "has 0 prompts"),
        (list("abcd"), "has 4 prompts"),
        (map(str, range(1001)), "has 1,001 prompts"),
        (map(str, range(10**6)), "is too large"),
    ],
)
def test_too_few_or_too_many_are_refused(tmp_path, lines, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        read_prompts(write(tmp_path, lines))
    assert "calibration_prompts" in str(caught.value)
    assert "1,000" in caught.value.allowed


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a\nb\n" + "秋天的枫林".encode("gb18030") + b"\nd\ne\n")
    with pytest.raises(ConfigError, match="line 3, is not UTF-8"):
        read_prompts(str(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_prompts(str(path))
