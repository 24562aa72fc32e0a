"""Train a ControlNet for the model in the box: ``python examples/train_shapes_control.py``.

Edges say where the object is and how large; the caption says the rest. The UNet stays as it is. The
run is resumed where it was killed; losses are printed, and the finished folder of diffusers is
``--output``/controlnet.
"""

import argparse
import os
from pathlib import Path

# Before Paddle is imported: one thread, and no strided views, which its CPU kernels read slowly.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLAGS_use_stride_kernel", "0")

from fastdeploy_diffusion.paddle_runtime import paddle


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/shapes-control"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pool", type=int, default=2400, help="encoded pictures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    from shapes.control import (
        CONTROLNET_CONFIG,
        create_controlnet,
        encode_placed,
        open_shapes,
        train_controlnet,
    )
    from shapes.folder import write_json, write_weights

    paddle.seed(11)
    model = open_shapes()
    controlnet = create_controlnet(model.unet)
    pool = encode_placed(
        model.vae, options.output / "pool.safetensors", count=options.pool, seed=2000
    )
    train_controlnet(
        controlnet,
        model,
        pool,
        options.output / "controlnet.safetensors",
        steps=options.steps,
        batch=options.batch,
    )
    folder = options.output / "controlnet"
    write_json(folder / "config.json", CONTROLNET_CONFIG)
    write_weights(controlnet, folder / "diffusion_pytorch_model.safetensors")
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
