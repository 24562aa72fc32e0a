"""The sections for what engines let users choose, one for each engine that has any."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import ConfigSection, read_list
from fastdeploy_diffusion.suggest import did_you_mean

# What Paddle Inference runs on a GPU unless it is told otherwise, in its order: ``kPirGpuPasses``
# of its ``paddle_pass_builder.cc``, and the choice of layouts, which comes after them.
PADDLE_GPU_PASSES = (
    "add_shadow_output_after_dead_parameter_pass",
    "delete_quant_dequant_linear_op_pass",
    "delete_weight_dequant_linear_op_pass",
    "map_op_to_another_pass",
    "identity_op_clean_pass",
    "silu_fuse_pass",
    "conv2d_bn_fuse_pass",
    "conv2d_add_act_fuse_pass",
    "conv2d_add_fuse_pass",
    "embedding_eltwise_layernorm_fuse_pass",
    "fused_rotary_position_embedding_pass",
    "fused_flash_attn_pass",
    "multihead_matmul_fuse_pass",
    "fused_weight_only_linear_pass",
    "matmul_add_act_fuse_pass",
    "fc_elementwise_layernorm_fuse_pass",
    "add_norm_fuse_pass",
    "group_norm_silu_fuse_pass",
    "matmul_scale_fuse_pass",
    "matmul_transpose_fuse_pass",
    "transpose_flatten_concat_fuse_pass",
    "remove_redundant_transpose_pass",
    "horizontal_fuse_pass",
    "transfer_layout_pass",
)


def _order_gpu_passes(names: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if names is None:
        return None
    for name in names:
        if name not in PADDLE_GPU_PASSES:
            raise refuse(fix=did_you_mean(str(name), PADDLE_GPU_PASSES))
    return tuple(name for name in PADDLE_GPU_PASSES if name in names)


# Any, for an element that is refused must be blamed on the whole option.
GPUPasses = Annotated[
    tuple[Any, ...] | None, BeforeValidator(read_list), AfterValidator(_order_gpu_passes)
]


class PaddleConfig(ConfigSection):
    """What Paddle Inference may do to a program on a GPU; None leaves it to Paddle."""

    gpu_passes: GPUPasses = Field(
        default=None,
        description=f"a list of {', '.join(PADDLE_GPU_PASSES)}; empty for none",
    )


class TensorRTConfig(ConfigSection):
    """How TensorRT builds; None takes its own default."""

    optimization_level: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="how long the builder searches: a whole number from 0 to 5",
    )
    workspace_gib: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="GiB of GPU memory for scratch while building: above 0, up to 1,000,000",
    )
