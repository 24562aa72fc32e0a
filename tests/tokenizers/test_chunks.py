"""Long prompts are split where AUTOMATIC1111's web UI splits them.

The tables are worked out by hand from its rule: a chunk that is full ends after its last comma if
no more than 20 tokens stand from there to its end, and where it is full otherwise; a comma that
finds the chunk full begins the next; BREAK ends a chunk, were it empty.
"""

from itertools import chain

import numpy as np
import pytest
from tokenizer_folders import sd1_config, sd2_config, write_json, write_vocabulary

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.tokenizers import CLIPTokenizer
from fastdeploy_diffusion.tokenizers.chunks import Token, split_into_chunks

COMMA = 9


def words(count):
    return [1] * count


# Ids between breaks → the lengths of the chunks of 75.
TABLE = {
    "nothing": ([[]], [0]),
    "a word": ([words(1)], [1]),
    "as many as fit": ([words(75)], [75]),
    "one more": ([words(76)], [75, 1]),
    "two full": ([words(150)], [75, 75]),
    "a comma 20 from the end": ([[*words(55), COMMA, *words(30)]], [56, 30]),
    "a comma 21 from the end": ([[*words(54), COMMA, *words(30)]], [75, 10]),
    "the last comma counts": ([[*words(60), COMMA, *words(5), COMMA, *words(20)]], [67, 20]),
    "a comma as the last that fits": ([[*words(74), COMMA, *words(5)]], [75, 5]),
    "a comma that does not fit": ([[*words(75), COMMA, *words(5)]], [75, 6]),
    # The comma that begins the second chunk is too far from its end.
    "full twice": ([[*words(75), COMMA, *words(80)]], [75, 75, 6]),
    "moved, and full again": ([[*words(60), COMMA, *words(100)]], [61, 75, 25]),
    "a comma with nothing behind it": ([[*words(70), COMMA, *words(4)]], [75]),
    "a break": ([words(3), words(4)], [3, 4]),
    "a break at the end": ([words(3), []], [3]),
    "a break at the beginning": ([[], words(3)], [0, 3]),
    "two breaks": ([words(3), [], words(4)], [3, 0, 4]),
    "a break alone": ([[], []], [0]),
    "a break behind a full chunk": ([words(75), words(2)], [75, 2]),
    "a break forgets the comma": ([[*words(60), COMMA], words(75 + 1)], [61, 75, 1]),
}


@pytest.mark.parametrize(("stretches", "lengths"), TABLE.values(), ids=TABLE.keys())
def test_chunks_end_where_they_should(stretches, lengths):
    tokens = [[Token(each, 1.0) for each in stretch] for stretch in stretches]
    chunks = split_into_chunks(tokens, 75, COMMA)
    assert [len(chunk) for chunk in chunks] == lengths
    assert list(chain(*chunks)) == list(chain(*tokens))


def test_a_vocabulary_may_have_no_comma():
    tokens = [Token(each, 1.0) for each in [*words(60), COMMA, *words(20)]]
    assert [len(each) for each in split_into_chunks([tokens], 75, None)] == [75, 6]


@pytest.fixture(scope="module", params=["sd1", "sd2"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_vocabulary(folder)
    write_json(folder, sd1_config() if request.param == "sd1" else sd2_config())
    return CLIPTokenizer.from_folder(folder)


def read(chunk):
    return np.frombuffer(chunk.input_ids, np.int64)


@pytest.mark.parametrize("text", ["", "a small red circle", "the cat's whiskers, 1984"])
def test_a_short_prompt_is_what_it_is_without_weights(tokenizer, text):
    (chunk,) = tokenizer.encode_weighted(text)
    np.testing.assert_array_equal(read(chunk), tokenizer.encode([text]).input_ids[0])
    assert chunk.weights == ()


def test_every_token_has_the_weight_of_its_word(tokenizer):
    (chunk,) = tokenizer.encode_weighted("a (beautiful sunset:1.3) over [mountains]")
    ids = {text: tokenizer.encode([text]).input_ids[0].tolist() for text in
           ("a", "beautiful sunset", "over", "mountains")}  # fmt: skip
    counted = {text: row.index(tokenizer.eos_id) - 1 for text, row in ids.items()}
    wanted = [1.0]  # of the begin token
    for text, weight in zip(counted, (1.0, 1.3, 1.0, 1 / 1.1), strict=True):
        wanted += [weight] * counted[text]
    wanted += [1.0] * (77 - len(wanted))
    assert list(chunk.weights) == wanted
    plain = "a beautiful sunset over mountains"
    np.testing.assert_array_equal(read(chunk), tokenizer.encode([plain]).input_ids[0])


def test_chunks_are_padded_as_texts_are(tokenizer):
    first, second = tokenizer.encode_weighted("a red cat BREAK (a dog)")
    for chunk, text in ((first, "a red cat"), (second, "a dog")):
        np.testing.assert_array_equal(read(chunk), tokenizer.encode([text]).input_ids[0])
    assert first.weights == ()
    assert second.weights[:2] == (1.0, 1.1)


@pytest.mark.parametrize("text", ["cat " * 2401, "BREAK " * 33 + "a", "x, " * 100_000])
def test_a_prompt_that_is_too_long_is_refused(tokenizer, text):
    with pytest.raises(RequestError, match="more than 32 chunks of 75 tokens") as caught:
        tokenizer.encode_weighted(text)
    assert "2400 tokens" in caught.value.allowed


def test_the_longest_prompt_is_read(tokenizer):
    (one,) = tokenizer.encode_weighted("cat")
    count = read(one).tolist().index(tokenizer.eos_id) - 1
    assert len(tokenizer.encode_weighted("cat " * (2400 // count))) == 32
