"""Train the model in the box from nothing: ``python examples/train_shapes.py``.

Five stages, each resumed where it was killed: the autoencoder, the text encoder, the pool of
encoded pictures, the UNet, and the decoder's polish on latents that the UNet has denoised.
Losses are printed; sample grids lie beside the checkpoints in ``--output``; the finished diffusers
folder is ``--output``/model. One worker process a core.
"""

import argparse
import os
from pathlib import Path

# Before Paddle is imported: one thread a worker, and no strided views, which its CPU kernels read
# slowly.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLAGS_use_stride_kernel", "0")

from fastdeploy_diffusion.paddle_runtime import paddle


def main() -> None:
    """Read the options and start one worker a core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--vae-steps", type=int, default=1900)
    parser.add_argument("--text-steps", type=int, default=500)
    parser.add_argument("--unet-steps", type=int, default=9000)
    parser.add_argument("--polish-steps", type=int, default=3200)
    parser.add_argument("--pool", type=int, default=6000, help="encoded pictures, over all workers")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    # `spawn` and not `fork`, because Paddle's threads do not survive a fork.
    paddle.distributed.spawn(_work, args=(options,), nprocs=options.workers, backend="gloo")


def _work(options: argparse.Namespace) -> None:
    """One worker: every stage in turn, with the others."""
    from shapes.captions import create_text_encoder, text_encoder_config, train_text_encoder
    from shapes.denoising import create_redraw, create_unet, train_unet
    from shapes.folder import write_folder
    from shapes.pictures import create_vae, train_vae
    from shapes.polishing import polish_decoder
    from shapes.pool import encode_pool
    from shapes.training_run import average_over_workers
    from shapes.vocabulary import write_tokenizer

    from fastdeploy_diffusion.tokenizers import CLIPTokenizer

    paddle.distributed.init_parallel_env()
    rank, workers = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    output: Path = options.output
    tokenizer_folder = output / f"tokenizer-{rank}"
    write_tokenizer(tokenizer_folder)
    tokenizer = CLIPTokenizer.from_folder(tokenizer_folder)
    text_config = text_encoder_config(tokenizer_folder)

    # The same seed everywhere: all workers begin with the same weights.
    paddle.seed(7)
    vae, text_encoder, unet = create_vae(), create_text_encoder(text_config), create_unet()
    train_vae(vae, output / "vae.safetensors", steps=options.vae_steps, batch=6, side=64)
    train_text_encoder(
        text_encoder, tokenizer, output / "text.safetensors", steps=options.text_steps, batch=48
    )
    pool = encode_pool(
        vae, output / f"pool-{rank}.safetensors", count=options.pool // workers, seed=1000 + rank
    )
    scaling_factor = average_over_workers(pool.scaling_factor)
    train_unet(
        unet,
        vae,
        text_encoder,
        tokenizer,
        pool,
        scaling_factor,
        output / "unet.safetensors",
        steps=options.unet_steps,
        batch=16,
    )
    polish_decoder(
        vae,
        create_redraw(unet, text_encoder, tokenizer, scaling_factor),
        output / "decoder.safetensors",
        steps=options.polish_steps,
        batch=2,
    )
    if rank == 0:
        write_folder(
            output / "model",
            vae=vae,
            text_encoder=text_encoder,
            unet=unet,
            text_config=text_config,
            scaling_factor=scaling_factor,
        )
        print(f"wrote {output / 'model'}")


if __name__ == "__main__":
    main()
