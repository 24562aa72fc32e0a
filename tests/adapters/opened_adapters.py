"""Adapters of written files, and the weights that they give."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fastdeploy_diffusion.adapters.adaptation import adapt
from fastdeploy_diffusion.adapters.adapter_file import open_adapter


def open_written(checkpoint, tensors, path: Path, *, metadata=None, **options):
    """Write tensors by name, and open the file as an adapter of a checkpoint."""
    save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, path, metadata)
    return open_adapter(path, checkpoint.family, list_sources(checkpoint), **options)


def list_sources(checkpoint):
    kinds = checkpoint.family.networks
    return {name: checkpoint.tensors(name) for name in kinds if kinds[name].role != "vae"}


def merge(checkpoint, component, adapters):
    """The weights of a component with adapters at their strengths."""
    source = checkpoint.tensors(component)
    return adapt(component, source, adapters).apply(source)
