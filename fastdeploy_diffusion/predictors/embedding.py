"""What a text encoder said of one text, and where a request's embeddings come from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Embedding:
    """What a text encoder said of one text.

    Args:
        values: (T, D) or (P,) float32, read-only.
        relative_error: Proof of the build that computed it: the largest difference from the Paddle
            float32 layer, relative to the layer's largest output.
    """

    values: npt.NDArray[np.float32]
    relative_error: float | None


@dataclass(frozen=True)
class EmbeddingReport:
    """Where the embeddings of a request's texts come from.

    Args:
        component: The text encoder.
        texts: How many different ones it was asked for.
        kept: How many of them were kept from earlier; if all were, it was not even loaded.
        relative_error: Proof of the builds that computed them; ``None`` where one has none.
    """

    component: str
    texts: int
    kept: int
    relative_error: float | None
