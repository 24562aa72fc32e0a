"""Flux's transformer with the weights of its blocks streamed from the checkpoint."""

from collections.abc import Mapping, Sequence

import numpy as np

from fastdeploy_diffusion.engines.session import Session
from fastdeploy_diffusion.predictors.weight_stream import WeightStream
from fastdeploy_diffusion.program import Program

_SHARED = ("conditioning", "cosines", "sines")


class StreamedSession(Session):
    """The programs of a transformer's parts behind the signature of the whole.

    Args:
        program: The whole.
        head: Runs before the blocks.
        tail: Runs after the blocks.
        double_blocks: The session of each block with two streams of tokens: the same one again and
            again, for they differ in their weights only.
        single_blocks: The session of each block with one.
        stream: The weights of all blocks, in this order.
    """

    def __init__(
        self,
        program: Program,
        head: Session,
        tail: Session,
        double_blocks: Sequence[Session],
        single_blocks: Sequence[Session],
        stream: WeightStream,
    ) -> None:
        super().__init__(head.engine, program)
        self._head, self._tail = head, tail
        self._double_blocks, self._single_blocks = double_blocks, single_blocks
        self._stream = stream

    def _run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        self._stream.restart()
        given = self._head.run(**feeds)
        shared = {name: given[name] for name in _SHARED}
        tokens, context = given["tokens"], given["context"]
        for block in self._double_blocks:
            given = block.run(tokens=tokens, context=context, **shared, **self._stream.take())
            tokens, context = given["next_tokens"], given["next_context"]
        text_tokens = context.shape[1]
        tokens = np.concatenate([context, tokens], axis=1)
        for block in self._single_blocks:
            given = block.run(tokens=tokens, **shared, **self._stream.take())
            tokens = given["next_tokens"]
        tokens = np.ascontiguousarray(tokens[:, text_tokens:])
        return self._tail.run(tokens=tokens, conditioning=shared["conditioning"])

    def _close(self) -> None:
        self._stream.close()
        for session in (self._head, self._tail, *self._double_blocks, *self._single_blocks):
            session.close()
