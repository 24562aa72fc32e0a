"""One resumable, data-parallel training run: optimiser, moving average, checkpoints."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed
from paddle import Tensor, nn
from safetensors import safe_open
from safetensors.numpy import save_file

from shapes.convolutions import speed_up


class TrainingRun:
    """Trains layers together, every worker process on its own share of each batch.

    Paddle's CPU kernels use one core each, so a machine is filled by one process a core; gradients
    are averaged among them. Step ``k`` draws its data from a generator seeded with
    ``(seed, rank, k)``: a run that was killed goes on as if nothing had happened.

    Args:
        path: Checkpoint (safetensors) that is resumed from when it exists.
        layers: The layers to train, by name.
        steps: Length of the run; the learning rate warms up and then falls along a cosine.
        learning_rate: Its peak.
        average_decay: Decay of the moving average of the weights.
    """

    def __init__(
        self,
        path: Path,
        layers: Mapping[str, nn.Layer],
        *,
        steps: int,
        learning_rate: float,
        average_decay: float = 0.999,
    ) -> None:
        self.path = path
        self.steps = steps
        self.step = 0
        self.is_main = paddle.distributed.get_rank() == 0
        self.weights = {
            f"{name}.{key}": weight
            for name, layer in layers.items()
            for key, weight in layer.state_dict().items()
        }
        self.average = {key: weight.numpy() for key, weight in self.weights.items()}
        self._decay = average_decay
        self._peak_rate = learning_rate
        self._optimizer = paddle.optimizer.AdamW(
            learning_rate=learning_rate,
            parameters=list(self.weights.values()),
            weight_decay=0.01,
            grad_clip=None,
        )
        for layer in layers.values():
            speed_up(layer)
        self._losses: list[float] = []
        if path.exists():
            self._resume()

    def run(self, *, save_every: int) -> Iterator[np.random.Generator]:
        """Yield this worker's generator for each step; the caller then calls ``learn``."""
        rank = paddle.distributed.get_rank()
        started, first = time.perf_counter(), self.step
        while self.step < self.steps:
            yield np.random.default_rng([20261120, rank, self.step])
            self.step += 1
            if self.is_main and self.step % 50 == 0:
                pace = (time.perf_counter() - started) / (self.step - first)
                loss = sum(self._losses) / len(self._losses)
                self._losses.clear()
                print(
                    f"{self.path.stem} {self.step}/{self.steps} loss {loss:.5f} {pace:.2f} s/step"
                )
            if self.is_main and (self.step % save_every == 0 or self.step == self.steps):
                self.save()

    def learn(self, loss: Tensor) -> None:
        """Back-propagate ``loss``, average gradients over the workers and update the weights."""
        loss.backward()
        self._losses.append(float(loss))
        self._exchange_gradients()
        self._optimizer.set_lr(self._peak_rate * self._schedule())
        self._optimizer.step()
        self._optimizer.clear_grad(set_to_zero=False)
        # A short memory at first, so that the average forgets the random initial weights.
        decay = min(self._decay, (1 + self.step) / (10 + self.step))
        for key, weight in self.weights.items():
            self.average[key] += (1 - decay) * (weight.numpy() - self.average[key])

    def use_average(self) -> None:
        """Put the averaged weights into the layers, for use after training."""
        for key, weight in self.weights.items():
            weight.set_value(self.average[key])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Lend the layers the averaged weights, and give them their own back."""
        own = {key: weight.numpy() for key, weight in self.weights.items()}
        self.use_average()
        yield
        for key, weight in self.weights.items():
            weight.set_value(own[key])

    def save(self) -> None:
        """Write weights, average and optimiser state; a kill leaves the previous file whole."""
        state = {f"weights.{key}": weight.numpy() for key, weight in self.weights.items()}
        state |= {f"average.{key}": value for key, value in self.average.items()}
        for key, value in self._optimizer.state_dict().items():
            if isinstance(value, Tensor):
                state[f"optimizer.{key}"] = value.numpy()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        save_file(state, partial, metadata={"training": json.dumps({"step": self.step})})
        os.replace(partial, self.path)

    def _resume(self) -> None:
        with safe_open(self.path, framework="numpy") as file:
            self.step = json.loads(file.metadata()["training"])["step"]
            for key, weight in self.weights.items():
                weight.set_value(file.get_tensor(f"weights.{key}"))
                self.average[key] = file.get_tensor(f"average.{key}")
            names = [name for name in file.keys() if name.startswith("optimizer.")]  # noqa: SIM118
            self._optimizer.set_state_dict(
                {
                    name.removeprefix("optimizer."): paddle.to_tensor(file.get_tensor(name))
                    for name in names
                }
            )

    def _exchange_gradients(self, largest_norm: float = 1.0) -> None:
        trained = [weight for weight in self.weights.values() if weight.grad is not None]
        flat = paddle.concat([weight.grad.flatten() for weight in trained])
        workers = paddle.distributed.get_world_size()
        if workers > 1:
            paddle.distributed.all_reduce(flat)
        # Not `norm()`, which raises every element to a power: thirteen times as slow.
        norm = math.sqrt(float(paddle.dot(flat, flat))) / workers
        flat = flat * (min(1.0, largest_norm / (norm + 1e-6)) / workers)
        for weight, gradient in zip(
            trained, flat.split([int(weight.size) for weight in trained]), strict=True
        ):
            weight.grad.set_value(gradient.reshape(weight.shape))

    def _schedule(self) -> float:
        warm_up = min(1.0, (self.step + 1) / 200)
        return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps)))


def average_over_workers(value: float) -> float:
    """The mean of what the workers give, to four digits."""
    workers = paddle.distributed.get_world_size()
    total = paddle.to_tensor(value)
    if workers > 1:
        paddle.distributed.all_reduce(total)
    return round(float(total) / workers, 4)
