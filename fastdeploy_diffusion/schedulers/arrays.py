"""Types of the arrays that schedulers exchange."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Latents, noise levels: float32 outside, in any precision of numpy inside.
FloatArray = NDArray[np.floating[Any]]
# Timesteps are int64 or float32, by scheduler.
TimestepArray = NDArray[Any]
