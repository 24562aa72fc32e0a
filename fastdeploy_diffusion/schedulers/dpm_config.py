"""Options of multistep DPM-Solver, checked against each other."""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from fastdeploy_diffusion.errors import ConfigError
from fastdeploy_diffusion.schedulers.config import FinalSigma, Magnitude, TimestepSpacing
from fastdeploy_diffusion.schedulers.dpm_update import AlgorithmType
from fastdeploy_diffusion.schedulers.unit_variance import UnitVarianceConfig

# Values in files of DEIS or UniPC that diffusers' DPM-Solver replaces by its own.
DPM_SOLVER_SYNONYMS = MappingProxyType(
    {
        ("algorithm_type", "deis"): "dpmsolver++",
        ("solver_type", "logrho"): "midpoint",
        ("solver_type", "bh1"): "midpoint",
        ("solver_type", "bh2"): "midpoint",
    }
)


@dataclass(frozen=True, kw_only=True)
class DPMSolverConfig(UnitVarianceConfig):
    """Options of multistep DPM-Solver.

    Attributes:
        solver_order: Order of the multistep solver; 2 with guidance, 3 without.
        algorithm_type: ODE or SDE, on noise or (``++``) on clean samples.
        solver_type: How a second-order step weighs the slope.
        lower_order_final: Lower the order at the end, below 15 steps.
        euler_at_final: Take the last step with first order.
        final_sigmas_type: Noise level after the last step: none, or that of timestep 0.
        lambda_min_clipped: Leave out timesteps whose log-SNR is lower.
        variance_type: DDPM's, for files that have it; the denoiser must not predict a variance.
        rescale_betas_zero_snr: Rescale the schedule: the last timestep is (almost) pure noise.
    """

    timestep_spacing: TimestepSpacing = "linspace"
    solver_order: Literal[1, 2, 3] = 2
    algorithm_type: AlgorithmType = "dpmsolver++"
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigmas_type: FinalSigma = "zero"
    lambda_min_clipped: Annotated[float, Field(le=0)] = -math.inf
    variance_type: (
        Literal["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"] | None
    ) = None
    rescale_betas_zero_snr: bool = False
    use_lu_lambdas: Literal[False] | None = False
    use_flow_sigmas: Literal[False] | None = False
    flow_shift: Magnitude | None = 1.0
    use_dynamic_shifting: Literal[False] = False
    time_shift_type: Literal["exponential"] = "exponential"


def check_combination(config: DPMSolverConfig) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: Names the two options.
    """
    if not config.algorithm_type.endswith("++") and config.final_sigmas_type == "zero":
        raise ConfigError(
            f"algorithm_type={config.algorithm_type!r} cannot step to final_sigmas_type='zero'",
            allowed="final_sigmas_type='sigma_min', or a '++' algorithm",
            fix="set final_sigmas_type to 'sigma_min' in scheduler_config.json",
        )
    if config.algorithm_type == "sde-dpmsolver" and config.solver_order == 3:
        raise ConfigError(
            "solver_order=3 does not exist for algorithm_type='sde-dpmsolver'",
            allowed="solver_order 1 or 2",
            fix="set solver_order to 2 in scheduler_config.json",
        )
