import warnings

import numpy as np
import pytest
import transformers
from tokenizer_folders import (
    BAKED,
    BOS,
    CONFIGS,
    EOS,
    config_files,
    sd1_config,
    sd2_config,
    token,
    train_vocabulary,
    write_json,
    write_tokenizer_json,
    write_vocabulary,
)
from tokenizer_texts import TEXTS, random_texts

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, TruncationWarning

ALL_TEXTS = [*TEXTS, *random_texts(120)]


def reference_ids(reference, texts, max_length):
    return reference(
        texts, padding="max_length", truncation=True, max_length=max_length, return_tensors="np"
    )["input_ids"]


def assert_equals_transformers(folder, texts=ALL_TEXTS):
    ours = CLIPTokenizer.from_folder(folder)
    reference = transformers.CLIPTokenizer.from_pretrained(folder)
    assert (ours.bos_id, ours.eos_id, ours.pad_id, ours.vocab_size) == (
        reference.bos_token_id,
        reference.eos_token_id,
        reference.pad_token_id,
        len(reference),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        encoded = ours.encode(texts)
    assert encoded.input_ids.dtype == np.int64
    expected = reference_ids(reference, texts, ours.max_length)
    for text, row, wanted in zip(texts, encoded.input_ids, expected, strict=True):
        assert row.tolist() == wanted.tolist(), text
    for text, cut in zip(texts, encoded.truncated, strict=True):
        # What diffusers shows in its own warning.
        ids = reference(text)["input_ids"]
        assert cut == reference.decode(ids[ours.max_length - 1 : -1]), text
    return ours, reference


def test_there_are_enough_strings():
    assert len(set(ALL_TEXTS)) >= 200


@pytest.mark.parametrize("config", CONFIGS)
def test_vocab_and_merges_equal_transformers(tmp_path, config):
    write_vocabulary(tmp_path)
    write_json(tmp_path, config_files(config, train_vocabulary()[0]))
    assert_equals_transformers(tmp_path)


@pytest.mark.parametrize("config", CONFIGS)
def test_tokenizer_json_equals_transformers(tmp_path, config):
    files = config_files(config, train_vocabulary()[0])
    # The two files carry the same added tokens in a published folder.
    added = [
        token(text, False, id=index, special=False)
        for text, index in files.get("added_tokens.json", {}).items()
    ]
    vocab = train_vocabulary()[0]
    specials = [token(t, True, id=vocab[t], special=True) for t in (BOS, EOS)]
    write_tokenizer_json(tmp_path, added_tokens=specials + added)
    write_json(tmp_path, files)
    assert_equals_transformers(tmp_path)


def test_folder_saved_by_transformers_equals_transformers(tmp_path):
    write_vocabulary(tmp_path)
    write_json(tmp_path, sd2_config())
    transformers.CLIPTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    assert_equals_transformers(tmp_path / "saved")


def test_truncation_and_padding_baked_into_tokenizer_json_do_not_shorten_prompts(tmp_path):
    write_tokenizer_json(tmp_path, **BAKED)
    write_json(tmp_path, sd1_config())
    assert_equals_transformers(tmp_path)


def test_tokenizer_json_without_post_processor_gets_begin_and_end(tmp_path):
    write_tokenizer_json(tmp_path, post_processor=None)
    assert_equals_transformers(tmp_path, TEXTS[:20])


@pytest.fixture
def folder(tmp_path):
    write_vocabulary(tmp_path)
    write_json(tmp_path, sd1_config())
    return tmp_path


def test_sd1_pads_with_the_end_token_and_sd2_with_exclamation_marks(folder):
    sd1 = CLIPTokenizer.from_folder(folder)
    write_json(folder, sd2_config())
    sd2 = CLIPTokenizer.from_folder(str(folder))
    empty = [sd1.bos_id, sd1.eos_id]
    assert sd1.encode([""]).input_ids.tolist() == [empty + [sd1.eos_id] * 75]
    assert sd2.encode([""]).input_ids.tolist() == [empty + [0] * 75]


def test_of_a_very_long_prompt_no_more_is_tokenized_than_needed(folder):
    tokenizer = CLIPTokenizer.from_folder(folder)
    reference = transformers.CLIPTokenizer.from_pretrained(folder)
    words = ["Red", "cat,", "a", "\u3000", "猫!", "it's", " " * 5000]
    random = np.random.default_rng(20261129)
    for text in ("cat " * 260_000, " ".join(random.choice(words, 60_000).tolist()), "a" * 30_000):
        with pytest.warns(TruncationWarning, match=r"has (more than )?\d+ tokens") as caught:
            prompts = tokenizer.encode([text])
        assert len(str(caught[0].message)) < 200
        expected = reference_ids(reference, [text[:100_000]], tokenizer.max_length)
        assert prompts.input_ids.tolist() == expected.tolist()
        is_one_word = " " not in text
        assert ("more than" in str(caught[0].message)) != is_one_word
        assert (len(prompts.truncated[0]) < len(text) / 2) != is_one_word


def test_a_long_prompt_keeps_its_end_token_and_warns_with_what_was_cut(folder):
    tokenizer = CLIPTokenizer.from_folder(folder)
    fits, too_long = "a " * 75, "a " * 75 + "Red CAT, 猫!"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.encode([fits]).truncated == ("",)
    with pytest.warns(TruncationWarning, match=r"reads 75; cut off: 'red cat , 猫 !'") as caught:
        prompts = tokenizer.encode(["a dog", too_long])
    assert prompts.truncated == ("", "red cat , 猫 !")
    assert prompts.input_ids.shape == (2, 77)
    assert prompts.input_ids[1, 76] == tokenizer.eos_id
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("texts", "message"),
    [("a cat", "'a cat'"), ([], r"\[\]"), (["a", 3], "3"), (["ok", "x\ud83dy"], "position 1")],
)
def test_refuses_what_is_not_a_list_of_texts(folder, texts, message):
    with pytest.raises(RequestError, match=message):
        CLIPTokenizer.from_folder(folder).encode(texts)
