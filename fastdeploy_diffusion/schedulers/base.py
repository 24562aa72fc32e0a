"""The contract of every scheduler: numpy in, numpy out, one request at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Generic

import numpy as np

from fastdeploy_diffusion.errors import RequestError
from fastdeploy_diffusion.schedulers.arrays import FloatArray, TimestepArray
from fastdeploy_diffusion.schedulers.config import ConfigT, SchedulerConfig
from fastdeploy_diffusion.schedulers.custom_plan import read_sigmas, read_timesteps

DrawNoise = Callable[[], FloatArray]


class Scheduler(ABC, Generic[ConfigT]):
    """Turns denoiser outputs into less noisy latents, step by step.

    The results equal those of the diffusers class ``diffusers_name`` with the same config, for the
    same noise. A scheduler holds the state of one request; ``set_timesteps`` starts the next.

    Attributes:
        ignored_options: Options of the file that belong to other algorithms: no effect here.
        order: Entries of ``timesteps`` that one step takes, but for the first or last step.
        foreign_values: Values of options in files of other classes, and those that replace them.
        takes_timesteps: Whether a request may choose its own timesteps.
        takes_sigmas: Whether a request may choose its own noise levels.
    """

    diffusers_name: ClassVar[str]
    config_class: ClassVar[type[SchedulerConfig]]
    order: ClassVar[int] = 1
    foreign_values: ClassVar[Mapping[tuple[str, str], str]] = MappingProxyType({})
    takes_timesteps: ClassVar[bool] = False
    takes_sigmas: ClassVar[bool] = False

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.ignored_options: Mapping[str, Any] = MappingProxyType({})
        self.num_inference_steps = 0
        self._timesteps: TimestepArray | None = None
        self._begin_index = 0
        self._end_index: int | None = None
        self._position = 0

    @property
    def timesteps(self) -> TimestepArray:
        """One timestep per denoiser call of this request, int64 or float32.

        Raises:
            RequestError: ``set_timesteps`` was not called.
        """
        return self.planned_timesteps[self._begin_index : self._end_index]

    @property
    def planned_timesteps(self) -> TimestepArray:
        """The timesteps with those that ``set_begin_index`` and ``set_end_index`` left out.

        Raises:
            RequestError: ``set_timesteps`` was not called.
        """
        if self._timesteps is None:
            raise RequestError(
                "the scheduler has no timesteps yet",
                fix="call set_timesteps(num_inference_steps) before the loop",
            )
        return self._timesteps

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first latents, known after ``set_timesteps``."""
        return 1.0

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Plan a request and forget the last one.

        Args:
            num_inference_steps: Number of steps, from 1 to the training length.
            timesteps: In place of a number: the timestep of each step, descending.
            sigmas: In place of a number: the noise level before each step and after the last.

        Raises:
            RequestError: The request cannot be served by this scheduler.
        """
        # A refused plan must not overwrite parts of the last one.
        self._timesteps = None
        if timesteps is not None or sigmas is not None:
            self._follow(num_inference_steps, timesteps, sigmas)
            return
        num_inference_steps = self.check_steps(num_inference_steps)
        limit = self.config.num_train_timesteps
        planned = self._plan(num_inference_steps)
        if self.config.steps_offset and planned[0] >= limit:
            raise self.refuse_steps(
                num_inference_steps,
                f"fewer steps: steps_offset={self.config.steps_offset} moves the first timestep to "
                f"{planned[0]}, past the last trained one, {limit - 1}",
            )
        self._begin(planned, num_inference_steps)

    def set_begin_index(self, index: int) -> None:
        """Leave out the first timesteps of a plan, as image-to-image does.

        Args:
            index: Number of them: ``order`` for each step that is left out.

        Raises:
            RequestError: ``set_timesteps`` was not called, or no timestep would be left.
        """
        count = len(self.planned_timesteps)
        if not 0 <= index < count:
            raise RequestError(
                f"a request cannot begin at index {index} of {count} timesteps",
                allowed=f"0 to {count - 1}",
            )
        self._begin_index = self._position = index

    def set_end_index(self, index: int) -> None:
        """Leave out the last timesteps of a plan, so that the latents keep a part of the noise.

        Args:
            index: Of the first one that is left out.

        Raises:
            RequestError: ``set_timesteps`` was not called, or no timestep would be left.
        """
        count = len(self.planned_timesteps)
        if not self._begin_index < index <= count:
            raise RequestError(
                f"a request that begins at index {self._begin_index} of {count} timesteps cannot "
                f"end at {index}",
                allowed=f"{self._begin_index + 1} to {count}",
            )
        self._end_index = index

    def step(
        self,
        model_output: FloatArray,
        timestep: float,
        latents: FloatArray,
        *,
        noise: DrawNoise,
    ) -> FloatArray:
        """Take one step towards the clean latents.

        Args:
            model_output: The denoiser's output, ``(B, C, H, W)``.
            timestep: The entry of ``timesteps`` that the denoiser was called with.
            latents: The latents before ``scale_model_input``, ``(B, C, H, W)``.
            noise: Draws standard-normal float32 of the latents' shape; called whenever diffusers
                would draw.

        Returns:
            The next latents, ``(B, C, H, W)`` float32.

        Raises:
            RequestError: The timestep is not the one that is due, or the shapes do not fit.
        """
        position = self.due_index(timestep)
        # Half precision would overflow here: latents can start at 4096 times unit noise.
        output = np.asarray(model_output, dtype=np.float32)
        current = np.asarray(latents, dtype=np.float32)
        if output.shape != self.output_shape(current.shape):
            raise RequestError(
                f"the denoiser returned {output.shape} for latents of {current.shape}",
                allowed=str(self.output_shape(current.shape)),
                fix="give step() the output for these latents, after classifier-free guidance",
            )
        result = self._step(position, output, current, noise)
        self._position = position + 1
        return result

    def scale_model_input(self, latents: FloatArray, timestep: float) -> FloatArray:
        """Scale ``(B, C, H, W)`` latents to the variance of training at this timestep."""
        return latents

    @abstractmethod
    def add_noise(self, original: FloatArray, noise: FloatArray, timestep: float) -> FloatArray:
        """Noise clean latents to the level of one of this request's timesteps.

        For image-to-image, and between the steps of inpainting.

        Args:
            original: ``(B, C, H, W)`` float32.
            noise: Standard-normal, same shape.
            timestep: An entry of ``timesteps``.

        Raises:
            RequestError: The timestep is none of them.
        """

    def index_of(self, timestep: float) -> int:
        """Find the position of a timestep in ``planned_timesteps``.

        Of equal ones, the one that is due next.

        Raises:
            RequestError: The timestep is not in ``timesteps``.
        """
        positions = np.flatnonzero(self.timesteps == timestep) + self._begin_index
        if len(positions) == 0:
            raise RequestError(
                f"timestep {timestep} is not one of this request's timesteps",
                allowed=f"{self.timesteps[0]} … {self.timesteps[-1]}, as planned by set_timesteps",
                fix="pass the entries of scheduler.timesteps, not their positions",
            )
        ahead = positions[positions >= self._position]
        return int(ahead[0] if len(ahead) else positions[-1])

    def due_index(self, timestep: float) -> int:
        """Return the position in ``planned_timesteps`` that is due, if the timestep is that of it.

        Raises:
            RequestError: It is another one.
        """
        position = self._position
        remaining = self.planned_timesteps[position:]
        if len(remaining) == 0 or remaining[0] != timestep:
            raise RequestError(
                f"timestep {timestep} is not the one that is due",
                allowed=str(remaining[0]) if len(remaining) else "none: every step was taken",
                fix="walk through scheduler.timesteps in order; set_timesteps starts again",
            )
        return position

    def check_steps(self, steps: object) -> int:
        """Refuse a number of steps before anything is computed for them.

        Returns:
            The number.

        Raises:
            RequestError: It is not a whole number from 1 to the training length.
        """
        limit = self.config.num_train_timesteps
        # bool is an int, and True steps is surely a mistake.
        if type(steps) is not int or not 1 <= steps <= limit:
            raise self.refuse_steps(steps, f"a whole number from 1 to {limit}")
        return steps

    def refuse_steps(self, steps: object, allowed: str) -> RequestError:
        """Make the error for a number of steps that cannot be served."""
        return RequestError(
            f"num_inference_steps={steps!r} is not possible with {type(self).__name__}",
            allowed=allowed,
            fix="change num_inference_steps",
        )

    def output_shape(self, latents_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the denoiser's output for latents of a shape."""
        return latents_shape

    @abstractmethod
    def _plan(self, steps: int) -> TimestepArray:
        """Reset all state of a request and return its timesteps."""

    def _follow(
        self,
        steps: int | None,
        timesteps: Sequence[float] | None,
        sigmas: Sequence[float] | None,
    ) -> None:
        """Plan the timesteps or the noise levels that the caller chose."""
        name = "timesteps" if sigmas is None else "sigmas"
        if steps is not None or (timesteps is not None and sigmas is not None):
            raise RequestError(
                f"{name} and {'num_inference_steps' if steps is not None else 'timesteps'} are "
                "both given",
                allowed="one of num_inference_steps, timesteps and sigmas",
            )
        if not (self.takes_timesteps if sigmas is None else self.takes_sigmas):
            raise RequestError(
                f"{type(self).__name__} takes no {name} of the caller's own",
                fix=f"leave {name} out, or choose another scheduler",
            )
        if sigmas is not None:
            levels = read_sigmas(sigmas)
            self._begin(self._plan_sigmas(levels), len(levels) - 1)
        elif timesteps is not None:
            chosen = read_timesteps(timesteps, self.config)
            self._begin(self._plan_timesteps(chosen), len(chosen))

    def _begin(self, planned: TimestepArray, steps: int) -> None:
        """Begin a request with a new plan."""
        self._timesteps, self.num_inference_steps = planned, steps
        self._begin_index = self._position = 0
        self._end_index = None

    def _plan_timesteps(self, timesteps: TimestepArray) -> TimestepArray:
        """Reset all state of a request and lay out the caller's timesteps."""
        raise NotImplementedError

    def _plan_sigmas(self, sigmas: FloatArray) -> TimestepArray:
        """Reset all state of a request and return the timesteps of the caller's noise levels."""
        raise NotImplementedError

    @abstractmethod
    def _step(
        self, position: int, model_output: FloatArray, latents: FloatArray, noise: DrawNoise
    ) -> FloatArray:
        """Run the algorithm on checked float32 arrays, at a position of ``planned_timesteps``."""
