"""No room for builds is a warning that says what to do, and the picture; none anywhere, an error.

On a real disk that is full, where one can be mounted; and with a limit to the size of files.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from file_powers import file_size_limit, small_disk
from PIL import Image

from fastdeploy_diffusion import DiffusionConfig, SDPipeline
from fastdeploy_diffusion.errors import DiskFullError, RequestError
from fastdeploy_diffusion.images import save_image
from fastdeploy_diffusion.predictors.embedding_files import Embedding, EmbeddingFiles
from fastdeploy_diffusion.runtime.cache import DIGESTS, EMBEDDINGS, ArtifactCache, CacheWarning

REQUEST = {"prompt": "a cat", "seed": 1, "num_inference_steps": 1}
COMPONENTS = ["text_encoder", "denoiser", "vae_decoder"]
KIB = 1024


def open_pipeline(model, cache_dir, **options):
    return SDPipeline(DiffusionConfig(model_path=model, cache_dir=cache_dir, **options))


def draw(pipeline):
    picture = pipeline.text_to_image(**REQUEST, output_type="np")
    pipeline.close()
    return picture


@pytest.fixture(scope="module")
def draw_without_cache(tiny_sd1):
    pictures = {}

    def draw_once(engine):
        if engine not in pictures:
            pictures[engine] = draw(open_pipeline(tiny_sd1, None, engine=engine, cache=False))
        return pictures[engine]

    return draw_once


@pytest.mark.parametrize(
    ("engine", "size", "some_fit"),
    [("paddle", 40 * KIB, False), ("paddle", 400 * KIB, True), ("openvino", 200 * KIB, True)],
)
def test_a_full_disk_is_a_warning_and_the_picture(
    tiny_sd1, tmp_path, draw_without_cache, engine, size, some_fit
):
    wanted = draw_without_cache(engine)
    with small_disk(tmp_path / "cache", size) as cache:
        options = {"engine": engine, "embedding_cache": {"disk_mib": 10}}
        with pytest.warns(CacheWarning) as said:
            picture = draw(open_pipeline(tiny_sd1, cache, **options))
        np.testing.assert_array_equal(picture, wanted)
        entries = ArtifactCache(cache, limit=0).entries()
        assert [each.find_damage() for each in entries] == [""] * len(entries)
        kept = {each.ingredients["component"] for each in entries}
        assert bool(kept) == some_fit
        assert kept < set(COMPONENTS)
        warned = [str(each.message) for each in said]
        assert [each for each in warned if "this build is not kept" in each] == [
            f"{component}: this build is not kept: no space left in {cache}; make room "
            "(fastdeploy-diffusion cache rm), or give another folder as cache_dir, or set "
            "cache: false"
            for component in COMPONENTS
            if component not in kept
        ]
        assert [each for each in warned if not (str(cache) in each and "make room" in each)] == []
        # Nothing is half written.
        assert not [path for path in cache.iterdir() if path.suffix]
        for folder in (DIGESTS, EMBEDDINGS):
            kinds = {path.suffix for path in (cache / folder).glob("*")}
            assert kinds <= {"", ".fits", ".safetensors"}


def test_no_room_anywhere_is_an_error_that_says_where(tiny_sd1, tmp_path, monkeypatch):
    blamed = []
    monkeypatch.setattr(
        "fastdeploy_diffusion.compiler.built_component.find_guilty_passes",
        lambda *given: blamed.append(given),
    )
    pipeline = open_pipeline(tiny_sd1, tmp_path / "cache", engine="paddle", passes=["merge-qkv"])
    with (
        file_size_limit(60 * KIB),
        pytest.warns(CacheWarning, match="this build is not kept: no file may be as large"),
        pytest.raises(DiskFullError) as caught,
    ):
        pipeline.build()
    assert caught.value.folder == Path(tempfile.gettempdir())
    assert "set TMPDIR" in caught.value.fix
    assert blamed == []  # no pass takes up a disk
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix]


def test_an_embedding_that_cannot_be_written_leaves_nothing(tmp_path):
    files = EmbeddingFiles(tmp_path, limit=10**6)
    embedding = Embedding(np.ones((64, 64), np.float32), None)
    with file_size_limit(KIB), pytest.warns(CacheWarning, match=r"not kept in .*; make room"):
        files.keep("a", embedding)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_does_not_fit_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with file_size_limit(KIB), pytest.raises(RequestError, match="File too large"):
        save_image(Image.fromarray(noise), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
