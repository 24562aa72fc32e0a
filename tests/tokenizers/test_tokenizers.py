import random
import unicodedata
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

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.tokenizers import CLIPTokenizer, TruncationWarning

TEXTS = [
    "",
    " ",
    "\n\t \r\n",
    "a photo of a cat",
    "A Photo Of A CAT!!!",
    "hello! wow!! !",
    "don't they're we've I'm you'll he'd it's 's 't'Re I'LL",
    "runs   of     spaces\n\nand\tnewlines\r\nhere",
    "no\u00a0break\u2003em\u3000ideographic\u200bzero\ufeffwidth",
    "1234567890 3.14 10,000 ½ Ⅷ ٣ ४",
    "(a:1.2) [b] {c} <lora:x:1> a_b-c/d\\e|f~g`h^i",
    "...---!!!???;;;",
    "naïve café Ångström",
    unicodedata.normalize("NFD", "naïve café Ångström e\u0301\u0323"),
    unicodedata.normalize("NFKD", "ﬁne ﬀ ① ㎏ ｆｕｌｌ"),
    "İstanbul ISTANBUL ẞ ß ǅ Σας ΟΔΟΣ",
    "一只可爱的猫坐在桌子上",
    "日本語のプロンプト、富士山",
    "한국어 프롬프트 각",
    unicodedata.normalize("NFD", "한국어 프롬프트"),
    "सुंदर पहाड़ों पर सूर्यास्त",
    "غروب الشمس الجميل فوق الجبال",
    "שקיעה יפה עם נִקּוּד",
    "красивый закат",
    "😀 🎨🌄 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳",
    "a\u200db\u200cc\u2060d",
    "\u202eright to left\u202c",
    "\x00\x01\x07\x1b[31m\x7f\x85\x9f control",
    "nul\x00inside",
    "\ufffd \ufffe \uffff \U0010ffff \ue000",
    "z\u0351\u0352\u0353alg\u0334\u0335o",
    "<|endoftext|>",
    "a cat<|endoftext|>a dog",
    "a <|ENDOFTEXT|> b <|StartOfText|>",
    "<|startoftext|> twice <|startoftext|><|endoftext|>",
    "<|endoftext|",
    " <|endoftext|> ",
    "</w> a</w> !</w>",
    "<cat-toy> on <CAT-TOY>s",
    "\u2028line\u2029paragraph\x0bvertical\x0cfeed",
    "ａ！？",
    "''s 'x ' '' 's's",
    "e" + "\u0301" * 40,
    "x" * 300,
    "many words " * 60,
    "!" * 90,
    "界" * 90,
    "😀" * 40,
    "a photo of " + "a very " * 70 + "small cat",
]


def random_texts(count):
    pieces = [piece for text in TEXTS for piece in (text[:12], text[-7:])]
    pieces += ["'s", "'LL", " ", "\n", "\u200d", "\u0301", "9", "!", EOS, BOS, "Ж", "猫", "🎨"]
    pick = random.Random(0)
    for _ in range(count):
        chosen = [pick.choice(pieces) for _ in range(pick.randint(1, 14))]
        yield pick.choice(["", " "]).join(chosen)
        yield "".join(chr(pick.randrange(pick.choice([0x250, 0xD800]))) for _ in range(9))


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
