"""Engines and passes by name: the one list of each, with import paths.

Nothing of them is imported here, so that a configuration or ``--help`` may ask at no cost.
"""

from collections.abc import Mapping
from types import MappingProxyType

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "paddle": "fastdeploy_diffusion.engines.paddle:PaddleEngine",
        "paddle-eager": "fastdeploy_diffusion.engines.paddle_eager:PaddleEagerEngine",
        "cinn": "fastdeploy_diffusion.engines.cinn:CINNEngine",
        "tensorrt": "fastdeploy_diffusion.engines.tensorrt:TensorRTEngine",
        "onnxruntime": "fastdeploy_diffusion.engines.onnxruntime:ONNXRuntimeEngine",
        "openvino": "fastdeploy_diffusion.engines.openvino:OpenVINOEngine",
    }
)

# Other names for them.
ENGINE_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {
        "eager": "paddle-eager",
        "paddle-inference": "paddle",
        "paddlepaddle": "paddle",
        "trt": "tensorrt",
        "ort": "onnxruntime",
        "onnx": "onnxruntime",
    }
)

# In the order in which they are applied: those of layers, then those of graphs.
PASSES: Mapping[str, str] = MappingProxyType(
    {
        "rotate-halves": "fastdeploy_diffusion.passes.layer.rotate_halves:RotateHalves",
        "merge-qkv": "fastdeploy_diffusion.passes.layer.merge_projections:MergeQKV",
        "merge-kv": "fastdeploy_diffusion.passes.layer.merge_projections:MergeKV",
        "merge-qkv-mlp": "fastdeploy_diffusion.passes.layer.merge_qkv_mlp:MergeQKVMLP",
        "phase-upsample": "fastdeploy_diffusion.passes.layer.phase_upsample:PhaseUpsample",
        "winograd-4x4": "fastdeploy_diffusion.passes.layer.winograd:LargeTileWinograd",
        "winograd-2x2": "fastdeploy_diffusion.passes.layer.winograd:SmallTileWinograd",
        "channels-last": "fastdeploy_diffusion.passes.layer.channels_last:ChannelsLast",
        "hoist-invariants": "fastdeploy_diffusion.passes.layer.hoist_invariants:HoistInvariants",
        "fuse-attention": "fastdeploy_diffusion.passes.graph.fuse_attention:FuseAttention",
        "fuse-group-norm-silu": (
            "fastdeploy_diffusion.passes.graph.fuse_group_norm:FuseGroupNormSiLU"
        ),
        "fuse-group-norm": "fastdeploy_diffusion.passes.graph.fuse_group_norm:FuseGroupNorm",
        "channel-group-norm": (
            "fastdeploy_diffusion.passes.graph.channel_group_norm:ChannelGroupNorm"
        ),
        "resize-nearest": "fastdeploy_diffusion.passes.graph.resize_nearest:ResizeNearest",
        "split-geglu": "fastdeploy_diffusion.passes.graph.split_geglu:SplitGEGLU",
        "fuse-gelu": "fastdeploy_diffusion.passes.graph.fuse_gelu:FuseGELU",
        "fuse-silu": "fastdeploy_diffusion.passes.graph.fuse_silu:FuseSiLU",
        "fuse-rotary": "fastdeploy_diffusion.passes.graph.fuse_rotary:FuseRotary",
        "fuse-rms-norm": "fastdeploy_diffusion.passes.graph.fuse_rms_norm:FuseRMSNorm",
        "fuse-adaptive-norm": (
            "fastdeploy_diffusion.passes.graph.fuse_adaptive_norm:FuseAdaptiveNorm"
        ),
        "fuse-gelu-tanh": "fastdeploy_diffusion.passes.graph.fuse_gelu_tanh:FuseTanhGELU",
        "native-attention": "fastdeploy_diffusion.passes.graph.native_attention:NativeAttention",
        "downsample-tokens": (
            "fastdeploy_diffusion.passes.layer.downsample_tokens:DownsampleTokens"
        ),
    }
)
