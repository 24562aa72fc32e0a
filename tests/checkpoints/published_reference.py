"""What diffusers and transformers build from a published config, on torch's meta device."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import transformers


def reference_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the torch model, without memory for its weights."""
    config = dict(config)
    with torch.device("meta"):
        if "_class_name" in config:
            model = getattr(diffusers, config["_class_name"]).from_config(config)
        else:
            kind = getattr(transformers, config.pop("architectures")[0])
            model = kind(kind.config_class(**config))
    # transformers 5.6 and later have no `text_model.` any more, except under a projection.
    return {
        name.removeprefix("text_model."): tuple(value.shape)
        for name, value in model.state_dict().items()
    }
