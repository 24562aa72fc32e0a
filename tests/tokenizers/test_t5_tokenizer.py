import json
import warnings

import numpy as np
import pytest
from t5_tokenizer_folders import make_reference, write_sentencepiece, write_t5_folder
from tokenizer_folders import write_tokenizer_json
from tokenizer_texts import TEXTS, random_texts
from tokenizers import Tokenizer, models

from fastdeploy_diffusion.errors import CheckpointError, RequestError
from fastdeploy_diffusion.tokenizers import T5Tokenizer, TruncationWarning

MORE = ["<extra_id_0> in <extra_id_99>", "a</s>b", "<pad>", "<unk> <UNK>", "</s>", "▁a ▁", "▁"]
ALL_TEXTS = [*TEXTS, *MORE, *random_texts(80)]


def test_there_are_enough_strings():
    assert len(set(ALL_TEXTS)) >= 200


@pytest.mark.parametrize("write", [write_t5_folder, write_sentencepiece])
@pytest.mark.parametrize("max_length", [256, 17])
def test_ids_equal_transformers(write, max_length, tmp_path):
    ours, reference = T5Tokenizer.from_folder(write(tmp_path / "t5")), make_reference()
    assert (ours.eos_id, ours.pad_id, ours.vocab_size) == (1, 0, len(reference))
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


def test_wrong_sentencepiece_models(tmp_path):
    with pytest.raises(CheckpointError, match="type 2"):
        T5Tokenizer.from_folder(write_sentencepiece(tmp_path, model_type=2))
    with pytest.raises(CheckpointError, match="0 pieces for what is unknown"):
        T5Tokenizer.from_folder(write_sentencepiece(tmp_path, unknown=1))
    whole = write_sentencepiece(tmp_path).joinpath("spiece.model").read_bytes()
    for damaged in (whole[:-3], b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 40):
        (tmp_path / "spiece.model").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            T5Tokenizer.from_folder(tmp_path)


def test_refuses_what_is_not_a_list_of_texts(tmp_path):
    with pytest.raises(RequestError, match="'a cat'"):
        T5Tokenizer.from_folder(write_t5_folder(tmp_path)).encode("a cat", 8)
