"""Pictures that are drawn at once are those that are drawn alone, bit for bit."""

import numpy as np
import pytest

from fastdeploy_diffusion import DiffusionConfig, FluxPipeline, SDPipeline
from fastdeploy_diffusion.engines.registry import create_engine, engine_names

ENGINES = [name for name in engine_names() if create_engine(name).keeps_rows_apart]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_picture_does_not_depend_on_its_batch(tiny_sd1, tiny_dev, engine, family):
    opened, model = {"sd": (SDPipeline, tiny_sd1), "flux": (FluxPipeline, tiny_dev)}[family]
    pipeline = opened(DiffusionConfig(model_path=model, engine=engine))
    asked = {"height": 32, "width": 24, "num_inference_steps": 2, "output_type": "np"}
    alone = [pipeline.text_to_image("a cat", seed=seed, **asked)[0] for seed in range(5)]
    for count in (2, 3, 5):
        images = pipeline.text_to_image("a cat", seed=0, num_images_per_prompt=count, **asked)
        np.testing.assert_array_equal(images, alone[:count])
