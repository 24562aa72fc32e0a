"""The script's parts on a handful of pictures; a whole run takes an hour."""

import numpy as np
import pytest

from fastdeploy_diffusion.paddle_runtime import paddle


@pytest.fixture(autouse=True)
def shapes(request, monkeypatch):
    """The examples' folder is no package: its modules are imported inside the tests."""
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")


def test_edges_are_where_the_object_ends():
    from shapes.control import place_object
    from shapes.world import RESOLUTION, Scene, draw_edges, paint

    scene = Scene("", "red", "star", "blue")
    random = np.random.default_rng(0)
    for _ in range(5):
        place = place_object(random)
        picture, edges = paint(scene, place), draw_edges(scene.shape, place)
        differs = np.zeros((RESOLUTION, RESOLUTION), bool)
        for axis in (0, 1):
            change = np.abs(np.diff(picture, axis=axis)).sum(axis=2) > 0.5
            differs |= np.pad(change, ((0, 1), (0, 0)) if axis == 0 else ((0, 0), (0, 1)))
        assert (edges[differs] > 0).all()
        assert (edges > 0).sum() < 3 * differs.sum()
        # The whole object is in the picture.
        assert not edges[[0, -1]].any()
        assert not edges[:, [0, -1]].any()


def test_a_controlnet_begins_as_the_unet_and_adds_nothing_until_it_is_trained(tmp_path):
    from shapes.control import create_controlnet, encode_placed, open_shapes, train_controlnet

    model = open_shapes()
    controlnet = create_controlnet(model.unet)
    kernel = "down_blocks.1.resnets.0.conv1.weight"
    known = {name: weight.numpy() for name, weight in model.unet.state_dict().items()}
    np.testing.assert_array_equal(controlnet.state_dict()[kernel].numpy(), known[kernel])
    feeds = paddle.randn([1, 4, 16, 16]), paddle.full([1], 500.0), paddle.rand([1, 3, 128, 128])
    assert not any(each.abs().max() for each in controlnet(*feeds))

    pool = encode_placed(model.vae, tmp_path / "pool.safetensors", count=3, seed=1)
    train_controlnet(controlnet, model, pool, tmp_path / "controlnet.safetensors", steps=2, batch=2)
    assert all(each.abs().max() > 0 for each in controlnet(*feeds))
    for name, weight in model.unet.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), known[name])
    # The pool is read, not drawn again.
    again = encode_placed(model.vae, tmp_path / "pool.safetensors", count=3, seed=1)
    np.testing.assert_array_equal(again.mean, pool.mean)
    assert again.places == pool.places
