"""The builds that a streamed Flux transformer is made of: head, one block of each kind, tail."""

from collections.abc import Mapping
from typing import cast

import numpy as np

from fastdeploy_diffusion.checkpoints import list_shapes
from fastdeploy_diffusion.engines.accuracy import Generator
from fastdeploy_diffusion.families.networks.flux import FluxTransformer2DConfig
from fastdeploy_diffusion.models.flux_parts import HEAD, TAIL
from fastdeploy_diffusion.predictors.block_build import BlockBuild
from fastdeploy_diffusion.predictors.block_weights import BlockWeights
from fastdeploy_diffusion.predictors.build import ComponentBuild
from fastdeploy_diffusion.predictors.network import Network
from fastdeploy_diffusion.predictors.reference import Reference
from fastdeploy_diffusion.predictors.rewriting import rewrite_network
from fastdeploy_diffusion.program import Signature, TensorSpec

_PREFIX = "block."  # what `FluxBlockProgram` puts before the names of weights
_ANGLES: Mapping[str, Generator] = {
    "cosines": lambda random, shape: np.cos(random.uniform(0, 64, shape)),
    "sines": lambda random, shape: np.sin(random.uniform(0, 64, shape)),
}


class StreamedParts:
    """Derives the builds of the parts from that of the whole.

    Args:
        whole: The transformer.
    """

    def __init__(self, whole: ComponentBuild) -> None:
        self._whole = whole
        self._config: FluxTransformer2DConfig = whole.network.config
        lengths = {spec.name: cast(int, spec.shape[1]) for spec in whole.inputs[:2]}
        self._tokens = lengths["hidden_states"]
        self._context = lengths["encoder_hidden_states"]

    def plan_head(self) -> ComponentBuild:
        """What runs before the blocks: embeddings, conditioning, and rotation."""
        return self._plan(
            "head",
            HEAD,
            self._whole.inputs,
            (
                self._specify_tokens("tokens", self._tokens),
                self._specify_tokens("context", self._context),
                *self._list_shared(),
            ),
            self._whole.generators,
        )

    def plan_double_block(self) -> BlockBuild | None:
        """A block with two streams of tokens, if there are any."""
        return self._plan_block(
            "double_block",
            ("transformer_blocks", self._config.num_layers),
            {"tokens": self._tokens, "context": self._context},
        )

    def plan_single_block(self) -> BlockBuild | None:
        """A block with one stream, of text and picture, if there are any."""
        return self._plan_block(
            "single_block",
            ("single_transformer_blocks", self._config.num_single_layers),
            {"tokens": self._context + self._tokens},
        )

    def plan_tail(self) -> ComponentBuild:
        """What runs after the blocks: the last norm, and the projection."""
        conditioning, *_ = self._list_shared()
        return self._plan(
            "tail",
            TAIL,
            (self._specify_tokens("tokens", self._tokens), conditioning),
            self._whole.outputs,
            {},
        )

    def _specify_tokens(self, name: str, count: int) -> TensorSpec:
        return TensorSpec(name, (None, count, self._config.inner_dim), "float32")

    def _list_shared(self) -> tuple[TensorSpec, ...]:
        """What all blocks take besides their tokens."""
        angles = self._context + self._tokens, self._config.attention_head_dim // 2
        return (
            TensorSpec("conditioning", (None, self._config.inner_dim), "float32"),
            TensorSpec("cosines", angles, "float32"),
            TensorSpec("sines", angles, "float32"),
        )

    def _plan_block(
        self,
        name: str,
        blocks: tuple[str, int],
        streams: Mapping[str, int],
    ) -> BlockBuild | None:
        path, count = blocks
        if not count:
            return None
        first, source = f"{path}.0.", self._whole.network.source
        own = {
            _PREFIX + each.removeprefix(first): each for each in source if each.startswith(first)
        }
        inputs = (
            *(self._specify_tokens(*stream) for stream in streams.items()),
            *self._list_shared(),
        )
        outputs = tuple(self._specify_tokens(f"next_{each}", streams[each]) for each in streams)
        whole = self._whole
        network = self._name_part(name, own)
        # With the names that passes leave; they are applied once more when the block is built.
        rewritten = rewrite_network(network, whole.layer_passes)
        weights = BlockWeights(
            source, path, count, _PREFIX, list_shapes(rewritten.layer), rewritten.recipe
        )
        own_name = f"{whole.name}_{name}"
        return BlockBuild(
            own_name,
            whole.placement,
            network,
            # The layer has its weights itself.
            Reference(own_name, network, Signature(inputs, outputs)),
            whole.passes,
            _ANGLES,
            (*inputs, *weights.specs),
            outputs,
            whole.sizes,
            weights=weights,
        )

    def _plan(
        self,
        name: str,
        parts: tuple[str, ...],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        generators: Mapping[str, Generator],
    ) -> ComponentBuild:
        whole = self._whole
        names = {each: each for each in whole.network.source if each.split(".")[0] in parts}
        network = self._name_part(name, names)
        own_name = f"{whole.name}_{name}"
        return ComponentBuild(
            own_name,
            whole.placement,
            network,
            Reference(own_name, network, Signature(inputs, outputs)),
            whole.passes,
            generators,
            inputs,
            outputs,
            whole.sizes,
        )

    def _name_part(self, name: str, weights: Mapping[str, str]) -> Network:
        """Give a part as a network, with the names of its weights here and in the checkpoint."""
        layer = f"fastdeploy_diffusion.models.flux_parts:make_{name}"
        return Network(layer, self._config, self._whole.network.source.rename(weights))
