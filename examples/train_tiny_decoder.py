"""Train a tiny decoder for a model in the box: ``python examples/train_tiny_decoder.py``.

The model draws captions of the training, and the tiny decoder learns to make of their latents what
the full decoder makes of them. The run is resumed where it was stopped; losses are printed, and the
finished decoder, with the names of the original code, is ``--output``/``--model``-tiny.safetensors.
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
    parser.add_argument("--model", choices=("shapes", "flux-shapes"), default="shapes")
    parser.add_argument("--output", type=Path, default=Path("runs/tiny-decoder"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pool", type=int, default=600, help="pictures that the model draws")
    options = parser.parse_args()

    from shapes.tiny_decoder import (
        create_tiny_decoder,
        draw_pool,
        train_tiny_decoder,
        write_tiny_decoder,
    )

    folder: Path = options.output / options.model
    folder.mkdir(parents=True, exist_ok=True)
    pool = draw_pool(options.model, folder / "pool", count=options.pool, seed=3000)
    paddle.seed(13)
    decoder = create_tiny_decoder(options.model)
    train_tiny_decoder(
        decoder,
        pool,
        folder / "decoder.safetensors",
        steps=options.steps,
        batch=options.batch,
        side=pool.latents.shape[2] * 5 // 8,
    )
    file = options.output / f"{options.model}-tiny.safetensors"
    write_tiny_decoder(decoder, file)
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
