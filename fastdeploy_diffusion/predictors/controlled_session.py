"""The session of a UNet with ControlNets, which run before it at every step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastdeploy_diffusion.families.networks.controlnet import PICTURE
from fastdeploy_diffusion.runtime.program import RESIDUAL, Program, TensorSpec, fill_shapes
from fastdeploy_diffusion.runtime.session import Arrays, Handle, Row, Session
from fastdeploy_diffusion.size_range import SizeRange

_SAMPLE = "sample"
SCALES = f"{RESIDUAL}scales"
"""The residual that rows of this session bring: (ControlNets, residuals) float32, the factors of
what each ControlNet adds in each place."""


def name_pictures(pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Name the control pictures, one for each ControlNet, as the session's inputs."""
    return {f"{PICTURE}_{index}": each for index, each in enumerate(pictures)}


@dataclass(frozen=True, eq=False)
class _ControlledHandle(Handle):
    unet: Handle
    controlnets: tuple[Handle, ...]


class ControlledSession(Session):
    """A UNet, and the ControlNets that make its residuals, behind the contract of one session.

    Its inputs are those of the UNet without the residuals, a control picture ``controlnet_cond_K``
    for each ControlNet, and `SCALES`. A ControlNet runs on those rows alone where its scales are
    not all zero. The sessions stay their owners': closing this one closes none of them.

    Args:
        unet: Takes residuals.
        controlnets: Each returns all of the UNet's residuals, by their names.
    """

    def __init__(self, unet: Session, controlnets: Sequence[Session]) -> None:
        self._unet, self._controlnets = unet, tuple(controlnets)
        self._residuals = [spec for spec in unet.inputs.values() if spec.name.startswith(RESIDUAL)]
        own = [spec for spec in unet.inputs.values() if spec not in self._residuals]
        pictures = [
            TensorSpec(f"{PICTURE}_{index}", each.inputs[PICTURE].shape, "float32")
            for index, each in enumerate(controlnets)
        ]
        scales = TensorSpec(SCALES, (None, len(controlnets), len(self._residuals)), "float32")
        inputs = (*own, *pictures, scales)
        program = Program("denoiser", None, inputs, tuple(unet.outputs.values()))
        super().__init__(unet.engine, program)

    def _condition(self, arrays: Arrays, timesteps: Sequence[float]) -> Handle:
        names = [spec.name for spec in self._list_conditions() if spec.name in self._unet.inputs]
        own = {name: arrays[name] for name in names}
        controlnets = []
        for index, session in enumerate(self._controlnets):
            given = {**own, PICTURE: arrays[f"{PICTURE}_{index}"]}
            taken = {name: given[name] for name in given if name in session.inputs}
            controlnets.append(session.condition(taken, timesteps))
        unet = self._unet.condition(own, timesteps)
        return _ControlledHandle(self, frozenset(timesteps), unet, tuple(controlnets))

    def _run_rows(self, rows: Sequence[Row]) -> Arrays:
        handles = [row.handle for row in rows if isinstance(row.handle, _ControlledHandle)]
        scales = np.stack([row.residuals[SCALES] for row in rows])
        shapes = fill_shapes(self._residuals, {**self._measure(rows[0]), "batch": len(rows)})
        sums = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        for index, session in enumerate(self._controlnets):
            chosen = [row for row, own in enumerate(scales[:, index]) if own.any()]
            if not chosen:
                continue
            _, channels, *_ = session.inputs[_SAMPLE].shape
            assert isinstance(channels, int)  # of latents, whose sizes alone are free
            given = session.run_all(
                [
                    # An inpainting UNet takes a mask and a picture behind the latents.
                    Row(
                        handles[row].controlnets[index],
                        rows[row].sample[:channels],
                        rows[row].timestep,
                    )
                    for row in chosen
                ]
            )
            for place, (name, total) in enumerate(sums.items()):
                factors = scales[chosen, index, place].reshape(-1, 1, 1, 1)
                total[chosen] += factors * given[name]  # which may be a mean over all pixels
        return self._unet.run_all(
            [
                Row(
                    handle.unet,
                    row.sample,
                    row.timestep,
                    {name: total[place] for name, total in sums.items()},
                )
                for place, (handle, row) in enumerate(zip(handles, rows, strict=True))
            ]
        )

    def _measure(self, row: Row) -> dict[str, int]:
        """Measure the free sizes of a row's sample, by name."""
        _, *sizes = next(iter(self._inputs.values())).shape
        pairs = zip(sizes, row.sample.shape, strict=True)
        return {size.name: found for size, found in pairs if isinstance(size, SizeRange)}

    def _compile(self, sizes: Mapping[str, int]) -> None:
        for session in (*self._controlnets, self._unet):
            session.compile(sizes)

    def _run(self, feeds: Arrays) -> Arrays:
        return self._run_rows(self._make_rows(feeds))

    def _close(self) -> None:
        return
