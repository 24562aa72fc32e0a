"""Adapters of peers, as `serve.py` loads them."""

import importlib.util

from fastdeploy_diffusion.benchmark.peers import find_peers


def load_adapter(name):
    (peer,) = find_peers([name], [])
    spec = importlib.util.spec_from_file_location("adapter", peer.adapter)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_task(folder, **changes):
    return {
        "config": {},
        "model_path": str(folder),
        "family": "sd1",
        "scheduler": None,
        "precision": "fp32",
        "device": "cpu",
        "width": 32,
        "height": 32,
        "guidance_scale": 5.0,
        "max_sequence_length": None,
        "threads": 2,
        "cache_dir": "nowhere",
        **changes,
    }
