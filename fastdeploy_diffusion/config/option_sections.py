"""The sections of a configuration for one matter each: sizes, embeddings, engines."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from fastdeploy_diffusion.config.problems import refuse
from fastdeploy_diffusion.config.sections import ConfigSection, read_list
from fastdeploy_diffusion.request_fields import MOST_CHUNKS
from fastdeploy_diffusion.suggest import did_you_mean

_LARGEST = 2**31 - 1
_RANGE_HELP = "a list of the smallest, the one to tune for, and the largest; or one number"
# The passes that Paddle Inference runs on a GPU by default, in its order: ``kPirGpuPasses``
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


def _check_range(value: Any) -> Any:
    if value is None:
        return value
    sizes = value if isinstance(value, tuple) else (value, value, value)
    is_whole = all(type(size) is int and 1 <= size <= _LARGEST for size in sizes)
    if len(sizes) != 3 or not is_whole or list(sizes) != sorted(sizes):
        raise refuse(fix=f"three whole numbers from 1 to {_LARGEST}, none less than the one before")
    return value


def _check_chunks(value: Any) -> Any:
    if max(value if isinstance(value, tuple) else (value,)) > MOST_CHUNKS:
        raise refuse(fix=f"whole numbers from 1 to {MOST_CHUNKS}")
    return value


# Any, for an element that is refused must be blamed on the whole option.
Range = Annotated[Any, BeforeValidator(read_list), AfterValidator(_check_range)]
ChunkRange = Annotated[Range, AfterValidator(_check_chunks)]


class ShapesConfig(ConfigSection):
    """The ranges of sizes of one build with ``enable_dynamic_shape``; None takes the model's."""

    batch: Range = Field(
        default=(1, 2, 8),
        description=f"rows of the denoiser, two for each picture with guidance: {_RANGE_HELP}",
    )
    height: Range = Field(default=None, description=f"height of pictures in pixels: {_RANGE_HELP}")
    width: Range = Field(default=None, description=f"width of pictures in pixels: {_RANGE_HELP}")
    chunks: ChunkRange = Field(
        default=(1, 1, 1),
        description=f"chunks of 75 tokens of a prompt, up to {MOST_CHUNKS}: {_RANGE_HELP}",
    )


class EmbeddingCacheConfig(ConfigSection):
    """Limits of the cache of embeddings of texts; 0 keeps none there."""

    memory_mib: float = Field(
        default=256.0,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="MiB of memory for embeddings of texts: a number from 0 to 1,000,000,000",
    )
    disk_mib: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="MiB on disk for embeddings of texts: a number from 0 to 1,000,000,000",
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
    """Options of Paddle Inference on a GPU; None takes Paddle's default."""

    gpu_passes: GPUPasses = Field(
        default=None,
        description=f"a list of {', '.join(PADDLE_GPU_PASSES)}; empty for none",
    )


class TensorRTConfig(ConfigSection):
    """Options of TensorRT's builds; None takes its own default."""

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
