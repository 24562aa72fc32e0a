"""Synthetic files of adapters: random tensors of every kind, for a layer of a given shape."""

from math import prod

import numpy as np

RANK = 3
LINEAR_KINDS = (
    *("lora", "loha", "lokr", "lokr-factored", "lokr-full"),
    *("dora-output", "dora-input", "dora-loha", "full"),
)
CONVOLUTION_KINDS = ("lora", "locon-tucker", "loha", "loha-tucker", "lokr-factored", "lokr-tucker")
CONVOLUTION_KINDS += ("dora-output", "dora-input", "full")


def draw(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def draw_change(kind, shape, seed=0):
    """Draw the tensors of a kind for a weight (out, in, height, width), by the ends of names."""
    out, into, *kernel = shape

    def part(*sizes, offset=0):
        return draw(sizes, seed + offset) / np.float32(np.sqrt(RANK * prod(kernel)))

    alpha = {"alpha": np.array([2.0], np.float32)}
    half = (2, out // 2), (2, into // 2)
    if kind == "full":
        return {"diff": 0.1 * draw(shape, seed), "diff_b": 0.1 * draw((out,), seed)}
    if kind == "locon-tucker":
        return {
            "lora_up.weight": part(out, RANK, 1, 1),
            "lora_down.weight": part(RANK, into, 1, 1),
            "lora_mid.weight": part(RANK, RANK, *kernel),
            **alpha,
        }
    if kind.endswith("loha-tucker"):
        return {
            **{f"hada_w{n}_a": part(RANK, out, offset=n) for n in (1, 2)},
            **{f"hada_w{n}_b": part(RANK, into, offset=n) for n in (1, 2)},
            **{f"hada_t{n}": part(RANK, RANK, *kernel, offset=n) for n in (1, 2)},
            **alpha,
        }
    if kind.endswith("loha"):
        changes = {
            **{f"hada_w{n}_a": part(out, RANK, offset=n) for n in (1, 2)},
            **{f"hada_w{n}_b": part(RANK, into * prod(kernel), offset=n) for n in (1, 2)},
            **alpha,
        }
    elif kind.startswith("lokr"):
        (out_1, out_2), (in_1, in_2) = half
        changes = {"lokr_w1": part(out_1, in_1), **alpha}
        if kind == "lokr-full":
            return {**changes, "lokr_w2": part(out_2, in_2, *kernel)}
        if kind == "lokr-tucker":
            changes["lokr_w2_a"], changes["lokr_w2_b"] = part(RANK, out_2), part(RANK, in_2)
            return {**changes, "lokr_t2": part(RANK, RANK, *kernel)}
        changes["lokr_w2_a"] = part(out_2, RANK)
        changes["lokr_w2_b"] = part(RANK, in_2 * prod(kernel))
        if kind == "lokr-factored":
            del changes["lokr_w1"]
            changes["lokr_w1_a"], changes["lokr_w1_b"] = part(out_1, RANK), part(RANK, in_1)
        return changes
    else:
        changes = {
            "lora_up.weight": part(out, RANK, *[1] * len(kernel)),
            "lora_down.weight": part(RANK, into, *kernel),
            **alpha,
        }
    if kind in ("dora-output", "dora-loha"):
        changes["dora_scale"] = 1 + np.abs(draw((out, *[1] * (len(shape) - 1)), seed))
    if kind == "dora-input":
        changes["dora_scale"] = 1 + np.abs(draw((1, into, *[1] * len(kernel)), seed))
    return changes
