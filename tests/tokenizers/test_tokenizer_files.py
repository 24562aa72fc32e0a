import json

import numpy as np
import pytest
from tokenizer_folders import (
    BAKED,
    sd1_config,
    write_json,
    write_tokenizer_json,
    write_vocabulary,
)
from tokenizers import Tokenizer, models

from fastdeploy_diffusion.errors import CheckpointError
from fastdeploy_diffusion.tokenizers import CLIPTokenizer

PROMPTS = ["a photo of a cat", "don't 8k!"]


@pytest.fixture
def folder(tmp_path):
    write_vocabulary(tmp_path)
    write_json(tmp_path, sd1_config())
    return tmp_path


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_names_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"no .*{name}"):
        CLIPTokenizer.from_folder(folder)


def test_names_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        CLIPTokenizer.from_folder(tmp_path / "nowhere")


DAMAGES = {
    "vocab.json": [b"", b"{", b"[1]", b'{"a": "b"}', b'{"a": 0, "b": 0}', b'{"a": 5}', b"\xff\xfe"],
    "merges.txt": [b"", b"#version: 0.2\na b c\n", b"a\n", b"zz qq\n", b"\xff", b" a\n"],
    "tokenizer_config.json": [
        b"nonsense",
        b"version https://git-lfs.github.com/spec/v1",
        b'{"pad_token": 3}',
        b'{"pad_token": null}',
        b'{"pad_token": {"content": "!", "lstripped": true}}',
        b'{"added_tokens_decoder": {"-1": "!"}}',
        b'{"added_tokens_decoder": {"1.0": "!"}}',
        b'{"pad_token": "\\ud800"}',
        b'{"pad_token": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"pad_token": {"text": "!"}}',
        b'{"eos_token": ""}',
        b'{"added_tokens_decoder": {"x": "!"}}',
        b'{"added_tokens_decoder": {"7": "!"}}',
        b'{"model_max_length": "77"}',
        b'{"model_max_length": 2}',
        b'{"model_max_length": 77.5}',
    ],
    "special_tokens_map.json": [
        *(b"{]", b'{"bos_token": []}', b'{"pad_token": "<pad>"}'),
        b'{"pad_token": ' + b'{"a":' * 100_000,
    ],
    "added_tokens.json": [
        *(b"{]", b'{"<new>": null}', b'{"<new>": 3}', b'{"<new>": true}', b'{"<new>": 936.0}'),
        b'{"<new>": 1000}',
    ],
    "tokenizer.json": [
        *(b"", b"{}", b'{"model": {"type": "BPE"}}'),
        b'{"model": ' + b"[" * 100_000,
        b'{"model": "\\udfff"}',
    ],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, many in DAMAGES.items() for content in many]
)
def test_names_a_damaged_file(folder, name, content):
    (folder / name).write_bytes(content)
    # Errors between two files name their folder.
    with pytest.raises(CheckpointError, match=rf"{name}|{folder.name}: the "):
        CLIPTokenizer.from_folder(folder)


def test_merges_that_were_cut_short_are_noticed(folder):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(lines[:-20]), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"merges\.txt is damaged: no merge makes 20 tokens"):
        CLIPTokenizer.from_folder(folder)


def test_a_merge_may_begin_with_a_hash(folder):
    """As "##" and every hashtag of the published ones: only the first line is a comment."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary |= {"##</w>": len(vocabulary)}
    write_json(folder, {"vocab.json": vocabulary})
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write("# #</w>\n")
    ids = CLIPTokenizer.from_folder(folder).encode(["##"]).input_ids[0]
    assert ids[1] == vocabulary["##</w>"]


def test_merges_with_windows_line_ends_are_read(folder):
    expected = CLIPTokenizer.from_folder(folder).encode(PROMPTS).input_ids
    merges = (folder / "merges.txt").read_bytes()
    (folder / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(
        CLIPTokenizer.from_folder(folder).encode(PROMPTS).input_ids, expected
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_lower_case", False),
        ("add_prefix_space", True),
        ("padding_side", "left"),
        ("truncation_side", "left"),
        ("tokenizer_class", "T5Tokenizer"),
        ("additional_special_tokens", "<x>"),
        ("sparkle", 1),
    ],
)
def test_an_option_that_is_not_implemented_is_named(folder, key, value):
    config = sd1_config()["tokenizer_config.json"] | {key: value}
    write_json(folder, {"tokenizer_config.json": config})
    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json: {key} = "):
        CLIPTokenizer.from_folder(folder)


def test_a_tokenizer_json_of_another_kind_is_refused(folder):
    (folder / "tokenizer.json").write_text(Tokenizer(models.WordLevel({"a": 0}, "a")).to_str())
    with pytest.raises(CheckpointError, match="no CLIP tokenizer"):
        CLIPTokenizer.from_folder(folder)
    model = {"type": "BPE", "dropout": 0.1, "end_of_word_suffix": "</w>", "vocab": {}, "merges": []}
    write_tokenizer_json(folder, model=model, added_tokens=[])
    with pytest.raises(CheckpointError, match=r"dropout = 0\.1"):
        CLIPTokenizer.from_folder(folder)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    write_tokenizer_json(folder, post_processor=byte_level)
    with pytest.raises(CheckpointError, match="post_processor"):
        CLIPTokenizer.from_folder(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "merges.txt"])
def test_a_link_that_leads_nowhere_is_named(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("gone")
    with pytest.raises(CheckpointError, match=f"{name} is a link to gone, which does not exist"):
        CLIPTokenizer.from_folder(folder)


def test_a_length_that_was_never_set_is_that_of_clip(folder):
    """transformers writes it as a number of 31 digits."""
    config = sd1_config()["tokenizer_config.json"]
    for given, length in ((int(1e30), 77), (16, 16)):
        write_json(folder, {"tokenizer_config.json": {**config, "model_max_length": given}})
        tokenizer = CLIPTokenizer.from_folder(folder)
        assert tokenizer.max_length == length
        assert tokenizer.encode([""]).input_ids.shape == (1, length)


@pytest.mark.parametrize("section", ["truncation", "padding"])
def test_a_tokenizer_json_that_works_from_the_left_is_refused(folder, section):
    write_tokenizer_json(folder, **{section: BAKED[section] | {"direction": "Left"}})
    with pytest.raises(CheckpointError, match=f"{section} on the left"):
        CLIPTokenizer.from_folder(folder)
