"""From an ONNX graph and its weights to TensorRT's plan."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastdeploy_diffusion.disk_room import make_temporary_folder
from fastdeploy_diffusion.engines.base import BuildSpec
from fastdeploy_diffusion.engines.nvidia_driver import list_gpus
from fastdeploy_diffusion.engines.tensorrt import PLAN_FILE, UNQUANTIZED, TensorRTEngine
from fastdeploy_diffusion.engines.tensorrt_cuda import use_device
from fastdeploy_diffusion.engines.tensorrt_package import import_tensorrt, make_logger
from fastdeploy_diffusion.engines.tensorrt_session import BATCH
from fastdeploy_diffusion.engines.tensorrt_timings import TimingCache, find_timings
from fastdeploy_diffusion.errors import EngineError
from fastdeploy_diffusion.export.int8 import quantize_export
from fastdeploy_diffusion.export.onnx import export_onnx
from fastdeploy_diffusion.precision import PRECISIONS
from fastdeploy_diffusion.runtime.manifest import check_manifest, read_graph_passes, write_manifest
from fastdeploy_diffusion.runtime.program import Program, TensorSpec
from fastdeploy_diffusion.runtime.weights import read_weights
from fastdeploy_diffusion.size_range import Size, SizeRange


def build(engine: TensorRTEngine, program: Program, spec: BuildSpec, out: Path) -> None:
    """Export the graph in the spec's precision, and compile it with its weights.

    In int8, the other layers are in half precision, and activations are quantized symmetrically:
    TensorRT takes no zero points.
    """
    precision = PRECISIONS[spec.precision]
    bounded = bound_batch(program)
    trt = import_tensorrt(spec.target)
    if spec.target is None:
        use_device(spec.device.index)
    with make_temporary_folder(program.name) as folder:
        graph = export_onnx(
            bounded,
            folder,
            as_initializers=True,
            dialect=engine.dialect,
            precision=UNQUANTIZED if precision.is_quantized else spec.precision,
        )
        if precision.is_quantized:
            quantize_export(
                bounded, folder, spec.precision, spec.weight_bits, engine.dialect, symmetric=True
            )
        weights = read_weights(bounded, check_manifest(bounded, folder))
        timings = find_timings(trt, spec.notes, spec.target or list_gpus()[spec.device.index])
        plan = build_plan(trt, bounded, graph.read_bytes(), weights, spec, timings)
        results = read_graph_passes(bounded, folder)
    (out / PLAN_FILE).write_bytes(plan)
    write_manifest(program, out, [PLAN_FILE], graph_passes=results)


def bound_batch(program: Program) -> Program:
    """Bound a free batch, for TensorRT builds plans within bounds.

    Raises:
        EngineError: An input has another free dimension without bounds; it is named.
    """
    for spec in program.inputs:
        if None in spec.shape[1:]:
            raise EngineError(
                f"{program.name}: input {spec.name!r} is {spec}, and a TensorRT plan is built for "
                "fixed sizes, or within bounds",
                allowed=f"a free batch, from {BATCH}, as the first dimension",
                fix="give every other size, or a SizeRange",
            )
    # All such dimensions are the batch; that they are equal halves the plan.
    return replace(
        program,
        inputs=tuple(_bound(spec) for spec in program.inputs),
        outputs=tuple(_bound(spec) for spec in program.outputs),
    )


def build_plan(
    trt: Any,
    program: Program,
    graph: bytes,
    weights: Mapping[str, np.ndarray],
    spec: BuildSpec,
    timings: TimingCache | None = None,
) -> Any:
    """Compile a graph, in the types that its tensors have.

    The weights go into the plan: TensorRT-RTX cannot make a plan to be refitted without a GPU.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        program: The signature of the graph, with bounds for every free dimension.
        graph: The ONNX model, whose weights are external initializers.
        weights: Their values by name, of the types that the graph gives them.
        spec: The GPU architecture, which `require_architecture` has accepted, or none for the
            current GPU of this machine; and the options, ``optimization_level`` and
            ``workspace_gib``.
        timings: Known kernel times; new measurements are added.

    Returns:
        The plan, a buffer of bytes.

    Raises:
        EngineError: TensorRT cannot parse an operator, which is named, or cannot build the plan; or
            an output is not what its spec says.
    """
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    # Since TensorRT 11 this is the only kind, and the flag has no effect.
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    # The parser's memory is the network's: it lives until the plan is built.
    parser = trt.OnnxParser(network, logger)
    _parse(parser, program, graph, weights)
    _let_attention_be_decomposed(trt, network)
    _check_outputs(trt, program, network)
    config = builder.create_builder_config()
    # On by default, it rounds the factors of every product to 10 bits: that is not float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # TensorRT-RTX would allocate while it runs, which a CUDA graph cannot capture.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if hasattr(trt, "ComputeCapability"):  # TensorRT itself builds for the current GPU only
        name = "CURRENT" if spec.target is None else spec.target.upper()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[name], 0)
    _apply_options(trt, config, spec.options)
    _add_profile(builder, config, program)
    if timings is not None:
        timings.attach(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{program.name}: TensorRT cannot build the plan: {_summarize(logger.errors)}",
            fix="run it on another engine, and report this",
        )
    if timings is not None:
        timings.keep(config)
    return plan


def _apply_options(trt: Any, config: Any, options: Mapping[str, Any]) -> None:
    if "optimization_level" in options:
        config.builder_optimization_level = options["optimization_level"]
    if "workspace_gib" in options:
        size = int(options["workspace_gib"] * 2**30)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)


def _parse(parser: Any, program: Program, graph: bytes, weights: Mapping[str, np.ndarray]) -> None:
    is_parsed = (
        parser.load_model_proto(graph)
        and all(
            parser.load_initializer(name, array.ctypes.data, array.nbytes)
            for name, array in weights.items()
        )
        and parser.parse_model_proto()
    )
    if is_parsed:
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    operators = {each.node_operator(): each.node_name() for each in errors if each.node_operator()}
    named = ", ".join(f"{operator} ({name})" for operator, name in operators.items())
    raise EngineError(
        f"{program.name}: TensorRT cannot parse {named or 'the graph'}: "
        + _summarize([each.desc() for each in errors]),
        fix="run it on another engine, and report this",
    )


def _let_attention_be_decomposed(trt: Any, network: Any) -> None:
    """Let TensorRT decompose attention without a fused kernel, as in float32.

    Otherwise, it refuses the whole network.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name == "ATTENTION_INPUT":
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True


def _check_outputs(trt: Any, program: Program, network: Any) -> None:
    """Compare the outputs that TensorRT derives with the specs, as far as they are known unrun."""
    for index, spec in enumerate(program.outputs):
        tensor = network.get_output(index)
        dtype = np.dtype(trt.nptype(tensor.dtype)).name
        shape = [None if size == -1 else size for size in tensor.shape]
        is_right = len(shape) == len(spec.shape) and all(
            found in (None, wanted) for found, wanted in zip(shape, spec.shape, strict=True)
        )
        if (tensor.name, dtype) != (spec.name, spec.dtype) or not is_right:
            found = TensorSpec(tensor.name, tuple(shape), dtype)
            raise EngineError(
                f"{program.name}: output {tensor.name!r} of its graph is {found}",
                allowed=f"{spec.name!r}, {spec}",
            )


def _add_profile(builder: Any, config: Any, program: Program) -> None:
    if not (shapes := list_profile_shapes(program)):
        return
    profile = builder.create_optimization_profile()
    for name, bounds in shapes.items():
        profile.set_shape(name, *bounds)
    config.add_optimization_profile(profile)


def list_profile_shapes(program: Program) -> dict[str, list[tuple[Any, ...]]]:
    """List the min, opt and max shapes of inputs with free sizes."""
    return {
        spec.name: list(zip(*map(_list_bounds, spec.shape), strict=True))
        for spec in program.inputs
        if spec.open_shape != spec.shape
    }


def _list_bounds(size: Size) -> tuple[Any, ...]:
    return (size.min, size.opt, size.max) if isinstance(size, SizeRange) else (size,) * 3


def _bound(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=tuple(BATCH if size is None else size for size in spec.shape))


def _summarize(messages: list[str]) -> str:
    # The first is the cause; the others follow from it.
    return " ".join(messages[0].split()) if messages else "it does not say why"
