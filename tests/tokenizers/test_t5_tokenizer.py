import base64
import json
import math
import struct
import warnings

import numpy as np
import pytest
from character_maps import CHARACTERS, compile_characters
from t5_tokenizer_folders import (
    make_reference,
    train_pieces,
    write_sentencepiece,
    write_t5_folder,
)
from tokenizer_folders import write_tokenizer_json
from tokenizer_texts import TEXTS, random_texts
from tokenizers import Tokenizer, models

from fastdeploy_diffusion.errors import CheckpointError, RequestError
from fastdeploy_diffusion.tokenizers import T5Tokenizer, TruncationWarning

MORE = [
    "＜pad＞ ＜extra_id_0＞ <extra_id_0> in <extra_id_99>",
    "a</s>b",
    "<pad>",
    "<unk> <UNK>",
    "</s>",
    "▁a ▁",
    "▁",
]
ALL_TEXTS = [*TEXTS, *MORE, *random_texts(80)]


def test_there_are_enough_strings():
    assert len(set(ALL_TEXTS)) >= 200


@pytest.mark.parametrize("write", [write_t5_folder, write_sentencepiece])
@pytest.mark.parametrize(
    ("max_length", "options"),
    [
        (256, {}),
        (17, {}),
        (40, {"pads_with_one": True}),
        (256, {"with_characters": True}),
    ],
)
def test_ids_equal_transformers(write, max_length, options, tmp_path):
    ours, reference = (
        T5Tokenizer.from_folder(write(tmp_path / "t5", **options)),
        make_reference(**options),
    )
    special = (0, 1) if options.get("pads_with_one") else (1, 0)
    assert (ours.eos_id, ours.pad_id, ours.vocab_size) == (*special, len(reference))
    assert ours.largest_id == len(reference) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        encoded = ours.encode(ALL_TEXTS, max_length)
    wanted = reference(
        ALL_TEXTS,
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_tensors="np",
    ).input_ids
    assert encoded.input_ids.dtype == np.int64
    for text, row, expected in zip(ALL_TEXTS, encoded.input_ids, wanted, strict=True):
        assert row.tolist() == expected.tolist(), text


@pytest.mark.parametrize("write", [write_t5_folder, write_sentencepiece])
def test_characters_are_mapped(write, tmp_path):
    tokenizer = T5Tokenizer.from_folder(write(tmp_path, with_characters=True))
    written = [f"{key} on a {key} horse, {key}{key}" for key in CHARACTERS]
    meant = [text.translate(str.maketrans(CHARACTERS)) for text in written]
    given, wanted = tokenizer.encode(written, 60).input_ids, make_reference()(meant).input_ids
    for text, row, expected in zip(written, given, wanted, strict=True):
        assert row[: len(expected)].tolist() == expected, text
        assert set(row[len(expected) :]) == {tokenizer.pad_id}
    plain = T5Tokenizer.from_folder(write_sentencepiece(tmp_path / "plain"))
    assert not np.array_equal(plain.encode(written, 60).input_ids, given)


def test_a_map_of_characters_that_points_outside_of_itself_is_refused(tmp_path):
    whole = compile_characters()
    size = int.from_bytes(whole[:4], "little")
    far = bytearray(whole)
    far[4:8] = (1 << 30).to_bytes(4, "little")  # the first unit leads out of the trie
    inside = compile_characters({"ａ": "猫"})
    leaf = next(
        place
        for place in range(4, len(inside), 4)
        if inside[place : place + 4] == (1 << 31).to_bytes(4, "little")
    )
    middle = bytearray(inside)
    middle[leaf] = 1  # the second byte of 猫
    for damaged in (
        b"\1",
        b"\0" * 4,
        whole[:-1] + b"\xff",
        whole[: size - 9],
        (size - 1).to_bytes(4, "little") + whole[4:],
        bytes(far),
        struct.pack("<301I", 1200, 260 << 10, *[0] * 299),  # a block of which the end is missing
        bytes(middle),
    ):
        with pytest.raises(CheckpointError, match=r"spiece\.model is damaged: its map of char"):
            T5Tokenizer.from_folder(write_sentencepiece(tmp_path / "t5", characters=damaged))
        encoded = base64.b64encode(damaged).decode()
        write_map(write_t5_folder(tmp_path / "json", with_characters=True), encoded)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged: its map of char"):
            T5Tokenizer.from_folder(tmp_path / "json")
    write_map(tmp_path / "json", 7)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged: its map of char"):
        T5Tokenizer.from_folder(tmp_path / "json")


def write_map(folder, value):
    """Replace the map of characters in a tokenizer.json, which may stand in a sequence."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Precompiled", "precompiled_charsmap": value}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_a_long_prompt_keeps_its_end_token_and_warns_with_what_was_cut(tmp_path):
    tokenizer = T5Tokenizer.from_folder(write_t5_folder(tmp_path))
    count = len(make_reference()("a photograph of a horse").input_ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.encode(["a photograph of a horse"], count).truncated == ("",)
    with pytest.warns(TruncationWarning, match="max_sequence_length") as caught:
        prompts = tokenizer.encode(
            ["a horse", "a photograph of a horse" + " riding a horse"], count
        )
    assert prompts.truncated == ("", "riding a horse")
    assert prompts.input_ids.shape == (2, count)
    assert prompts.input_ids[1, -1] == tokenizer.eos_id
    assert [warning.filename for warning in caught] == [__file__]


def test_truncation_and_padding_baked_into_tokenizer_json_do_not_shorten_prompts(tmp_path):
    tokenizer = Tokenizer.from_file(str(write_t5_folder(tmp_path) / "tokenizer.json"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    wanted = make_reference()("a beautiful sunset over mountains").input_ids
    given = T5Tokenizer.from_folder(tmp_path).encode(["a beautiful sunset over mountains"], 30)
    assert given.input_ids[0].tolist() == wanted + [0] * (30 - len(wanted))


def test_wrong_folders(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer folder"):
        T5Tokenizer.from_folder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor spiece\.model"):
        T5Tokenizer.from_folder(tmp_path)
    write_tokenizer_json(tmp_path)  # CLIP's
    with pytest.raises(CheckpointError, match="no T5 tokenizer, but one of the kind BPE"):
        T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": "nonsense"}))
    with pytest.raises(CheckpointError, match="is damaged"):
        T5Tokenizer.from_folder(tmp_path)
    Tokenizer(models.Unigram([("<unk>", 0.0)], 0)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="post_processor makes"):
        T5Tokenizer.from_folder(tmp_path)


def test_a_vocabulary_without_a_piece_for_the_unknown(tmp_path):
    """The library finds out at the first character that it does not know."""
    file = write_t5_folder(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["unk_id"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        T5Tokenizer.from_folder(tmp_path)


def test_wrong_sentencepiece_models(tmp_path):
    with pytest.raises(CheckpointError, match="type 2"):
        T5Tokenizer.from_folder(write_sentencepiece(tmp_path, model_type=2))
    with pytest.raises(CheckpointError, match="0 pieces for what is unknown"):
        T5Tokenizer.from_folder(write_sentencepiece(tmp_path, unknown=1))
    whole = write_sentencepiece(tmp_path).joinpath("spiece.model").read_bytes()
    no_number = whole.replace(struct.pack("<f", train_pieces()[9][1]), struct.pack("<f", math.nan))
    damages = [whole[:-3], b"version https://git-lfs.github.com/spec/v1\n", no_number]
    # A number that does not end was once read in quadratic time.
    for damaged in (*damages, b"\xff" * 10_000_000):
        (tmp_path / "spiece.model").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            T5Tokenizer.from_folder(tmp_path)


def test_refuses_what_is_not_a_list_of_texts(tmp_path):
    with pytest.raises(RequestError, match="'a cat'"):
        T5Tokenizer.from_folder(write_t5_folder(tmp_path)).encode("a cat", 8)


def test_what_is_cut_off_begins_where_the_rest_ends(tmp_path):
    tokenizer = T5Tokenizer.from_folder(write_t5_folder(tmp_path / "t5"))
    text = "a red circle on a blue background"
    whole = tokenizer.encode([text], 100)
    length = int((whole.input_ids[0] != tokenizer.pad_id).sum())  # the end token included
    assert whole.truncated == ("",)
    assert tokenizer.encode([text], length).truncated == ("",)
    with pytest.warns(TruncationWarning):
        one, two = (tokenizer.encode([text], length - count) for count in (1, 2))
    assert one.input_ids[0].tolist() == [*whole.input_ids[0, : length - 2], tokenizer.eos_id]
    for cut in (one.truncated[0], two.truncated[0]):
        assert cut
        assert text.endswith(cut)
    assert len(one.truncated[0]) < len(two.truncated[0])
