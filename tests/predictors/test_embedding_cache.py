"""Embeddings that are kept: encoders that are not even loaded, and the same pictures."""

import shutil
import threading
import time

import numpy as np
import pytest
from tiny_checkpoint import write_tiny_sd

from fastdeploy_diffusion import DiffusionConfig, GenerationRequest, SDPipeline
from fastdeploy_diffusion.images import read_metadata
from fastdeploy_diffusion.predictors.embedding_cache import EmbeddingCache
from fastdeploy_diffusion.predictors.embedding_files import Embedding, EmbeddingFiles
from fastdeploy_diffusion.predictors.recovering_session import RecoveringSession
from fastdeploy_diffusion.predictors.texts import Text, Wanted
from fastdeploy_diffusion.runtime.array_files import ArrayFiles
from fastdeploy_diffusion.runtime.cache import EMBEDDINGS, CacheWarning

REQUEST = {"seed": 5, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_sd(tmp_path_factory.mktemp("checkpoint") / "model")


def open_pipeline(model, memory_mib=256.0, disk_mib=0.0, **options):
    limits = {"memory_mib": memory_mib, "disk_mib": disk_mib}
    # An engine whose default passes leave each component one session.
    choice = {"engine": "paddle", **options}
    return SDPipeline(DiffusionConfig(model_path=model, embedding_cache=limits, **choice))


def draw(pipeline, prompt="a cat", **settings):
    """A picture, and how many texts were kept of how many."""
    result = pipeline.generate(GenerationRequest(prompt=prompt, **{**REQUEST, **settings}))
    (report,) = result.embeddings
    assert read_metadata(result.images[0])["run"]["embeddings"][0]["kept"] == report.kept
    return np.asarray(result.images[0]), (report.kept, report.texts)


def test_a_known_text_does_not_load_the_encoder(model, watch):
    wanted, counts = draw(open_pipeline(model, memory_mib=0))
    assert counts == (0, 2)
    for memory in ("resident", "staged"):
        pipeline = open_pipeline(model, memory=memory)
        draw(pipeline)
        pipeline.component("text_encoder").close()
        watch.clear()
        picture, counts = draw(pipeline)
        assert counts == (2, 2)
        assert "text_encoder" not in watch.loaded
        np.testing.assert_array_equal(picture, wanted)
        # One text is new: only that is encoded.
        assert draw(pipeline, negative_prompt="red")[1] == (1, 2)
        assert "text_encoder" in watch.loaded


def test_nothing_is_kept_where_nothing_may_be(model):
    pipeline = open_pipeline(model, memory_mib=0)
    assert [draw(pipeline)[1] for _ in range(2)] == [(0, 2), (0, 2)]


def test_close_forgets(model):
    pipeline = open_pipeline(model)
    draw(pipeline)
    pipeline.close()
    assert draw(pipeline)[1] == (0, 2)


def test_a_text_is_encoded_alike_alone_and_among_others(model):
    pipeline = open_pipeline(model)
    names = ("callback_on_step_end", "callback_on_step_end_tensor_inputs")
    seen = []

    def look(caller, index, timestep, tensors):
        seen.append(tensors["prompt_embeds"])

    for prompt in (["a cat", "a large red dog"], "a cat"):
        pipeline.close()
        pipeline.text_to_image(
            prompt, **REQUEST, **dict(zip(names, (look, ["prompt_embeds"]), strict=True))
        )
    np.testing.assert_array_equal(seen[0][:1], seen[1])


def test_layers_are_kept_apart(model):
    pipeline = open_pipeline(model, memory_mib=0)
    plain, skipped = draw(pipeline)[0], draw(pipeline, clip_skip=1)[0]
    assert not np.array_equal(plain, skipped)
    keeping = open_pipeline(model)
    for _ in range(2):
        np.testing.assert_array_equal(draw(keeping)[0], plain)
        picture, counts = draw(keeping, clip_skip=1)
        np.testing.assert_array_equal(picture, skipped)
    assert counts == (2, 2)


def test_a_text_of_which_two_layers_are_taken_is_one_text(model, monkeypatch):
    runs, run = [], RecoveringSession._run
    pipeline = open_pipeline(model)
    encoder = pipeline.component("text_encoder").pool

    def count(session, feeds):
        runs.append(session in encoder.sessions)
        return run(session, feeds)

    monkeypatch.setattr(RecoveringSession, "_run", count)
    for counts in ((0, 1), (1, 1)):
        assert draw(pipeline, prompt="", clip_skip=1)[1] == counts
    assert runs.count(True) == 1


def test_another_process_finds_them_on_disk(model, tmp_path, watch):
    options = {"disk_mib": 1.0, "cache_dir": tmp_path}
    wanted, counts = draw(open_pipeline(model, **options))
    assert counts == (0, 2)
    files = sorted((tmp_path / EMBEDDINGS).iterdir())
    assert len(files) == 2
    watch.clear()
    pipeline = open_pipeline(model, **options)
    picture, counts = draw(pipeline)
    assert counts == (2, 2)
    assert watch.loaded == ["denoiser", "vae_decoder"]
    np.testing.assert_array_equal(picture, wanted)
    # One file is not as it was written, and one is nothing.
    for damage, path in zip((flip_last_byte, empty), files, strict=True):
        damage(path)
    with pytest.warns(CacheWarning, match="is damaged") as warned:
        picture, counts = draw(open_pipeline(model, **options))
    assert (len(warned), counts) == (2, (0, 2))
    np.testing.assert_array_equal(picture, wanted)
    assert ArrayFiles(tmp_path / EMBEDDINGS).find_damage() == {}


def test_what_may_change_the_numbers_is_another_encoder(model, tmp_path):
    def identify(folder, **options):
        encoder = open_pipeline(folder, cache_dir=tmp_path, **options)._text_encoder
        return encoder.component.identify(encoder.signature())

    shutil.copytree(model, tmp_path / "copy")
    write_tiny_sd(tmp_path / "other", seed=1)
    own = identify(model, threads=2)
    assert identify(tmp_path / "copy", threads=2) == own
    others = [
        identify(tmp_path / "other", threads=2),
        identify(model, threads=1),
        identify(model, threads=2, engine="paddle-eager"),
        identify(model, threads=2, passes=["merge-qkv"]),
    ]
    assert len({own, *others}) == 5


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("")
    files = EmbeddingFiles(tmp_path / "file", limit=10**6)
    with pytest.warns(CacheWarning, match="not kept"):
        files.keep("a", make_embedding(1))


def make_embedding(value, floats=256):
    return Embedding(np.full((1, floats), value, np.float32), 1e-6)


def test_memory_holds_what_was_used_last(model):
    encoder = open_pipeline(model)._text_encoder
    signature = encoder.signature()
    cache = EmbeddingCache(limit=3 * 1024)
    texts = [Text(encoder.component, bytes([index]), Wanted("pooled")) for index in range(5)]
    for text in texts[:3]:
        cache.keep(text, signature, make_embedding(1))
    assert cache.find(texts[0], signature)
    cache.keep(texts[3], signature, make_embedding(1))
    kept = [cache.find(text, signature) is not None for text in texts]
    assert kept == [True, False, True, True, False]
    # What is larger than all room drives nothing out.
    cache.keep(texts[4], signature, make_embedding(1, floats=2000))
    kept = [cache.find(text, signature) is not None for text in texts]
    assert kept == [True, False, True, True, False]


def test_every_part_of_a_text_is_in_the_name_of_its_file(model, tmp_path):
    encoder, other = (
        open_pipeline(model, cache_dir=tmp_path, engine="paddle", threads=threads)._text_encoder
        for threads in (1, 2)
    )
    text = Text(encoder.component, bytes([1]), Wanted("hidden_states", -1))
    changes = {
        "component": [other.component],
        "content": [bytes([2])],
        "wanted": [Wanted("pooled", -1), Wanted("hidden_states", -2), Wanted("hidden_states")],
    }
    # What is new has no case yet.
    assert Text._fields == tuple(changes)
    assert Wanted._fields == ("output", "layer")
    texts = [text, *(text._replace(**{name: to}) for name, all_ in changes.items() for to in all_)]
    signature = encoder.signature()
    cache = EmbeddingCache(0, EmbeddingFiles(tmp_path / EMBEDDINGS, limit=10**6))
    for value, each in enumerate(texts):
        cache.keep(each, signature, make_embedding(value))
    found = [cache.find(each, signature).values[0, 0] for each in texts]
    assert found == list(range(len(texts)))
    # What the encoder is built for decides its numbers, too.
    assert cache.find(text, encoder.signature(batch=1)) is None


class Watched(np.ndarray):
    """An array that notes how many threads ask for its size at once."""

    inside, most = 0, 0

    @property
    def nbytes(self):
        Watched.inside += 1
        Watched.most = max(Watched.most, Watched.inside)
        time.sleep(0.02)
        Watched.inside -= 1
        return 1024


def test_threads_that_keep_at_once_take_turns(model):
    encoder = open_pipeline(model, engine="paddle")._text_encoder
    signature = encoder.signature()
    cache = EmbeddingCache(limit=3 * 1024)
    texts = [Text(encoder.component, bytes([index]), Wanted("pooled")) for index in range(8)]
    values = np.zeros((1, 256), np.float32).view(Watched)
    threads = [
        threading.Thread(target=cache.keep, args=(text, signature, Embedding(values, None)))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Watched.most == 1
    assert sum(cache.find(text, signature) is not None for text in texts) == 3
