"""Train a Flux in the box from nothing: ``python examples/train_flux_shapes.py``.

The world, the captions and the first stages are those of ``train_shapes.py``. Seven stages, each
resumed where it was killed: the autoencoder, both text encoders, the pool of encoded pictures, the
transformer by rectified flow, its guidance scale distilled from itself, and the decoder's polish.
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
    parser.add_argument("--output", type=Path, default=Path("runs/flux-shapes"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--vae-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=500, help="of each text encoder")
    parser.add_argument("--flow-steps", type=int, default=6000)
    parser.add_argument("--guidance-steps", type=int, default=1500)
    parser.add_argument("--polish-steps", type=int, default=1500)
    parser.add_argument("--pool", type=int, default=8000, help="encoded pictures, over all workers")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    # `spawn` and not `fork`, because Paddle's threads do not survive a fork.
    paddle.distributed.spawn(_work, args=(options,), nprocs=options.workers, backend="gloo")


def _work(options: argparse.Namespace) -> None:
    """One worker: every stage in turn, with the others."""
    from shapes.captions import create_text_encoder, text_encoder_config, train_text_encoder
    from shapes.flow import FlowData, FlowSamples, distil_guidance, train_flow
    from shapes.flow_sampling import create_flow_redraw
    from shapes.flux_folder import write_flux_folder
    from shapes.flux_latents import FLUX_VAE_CONFIG, measure_latents
    from shapes.flux_texts import TextEncoders, create_t5, t5_config, train_t5
    from shapes.pictures import create_vae, train_vae
    from shapes.pieces import write_t5_tokenizer
    from shapes.polishing import polish_decoder
    from shapes.pool import encode_pool
    from shapes.transformer import create_transformer
    from shapes.vocabulary import write_tokenizer

    from fastdeploy_diffusion.tokenizers import CLIPTokenizer, T5Tokenizer

    paddle.distributed.init_parallel_env()
    rank, workers = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    output: Path = options.output
    folders = output / f"tokenizer-{rank}", output / f"tokenizer_2-{rank}"
    write_tokenizer(folders[0])
    write_t5_tokenizer(folders[1])
    tokenizers = CLIPTokenizer.from_folder(folders[0]), T5Tokenizer.from_folder(folders[1])

    # The same seed everywhere: all workers begin with the same weights.
    paddle.seed(7)
    vae = create_vae(FLUX_VAE_CONFIG)
    clip = create_text_encoder(text_encoder_config(folders[0]))
    t5 = create_t5(t5_config(tokenizers[1]))
    transformer = create_transformer()
    encoders = TextEncoders(clip, tokenizers[0], t5, tokenizers[1])
    train_vae(
        vae,
        output / "vae.safetensors",
        steps=options.vae_steps,
        batch=6,
        side=64,
        divergence_weight=5e-3,
    )
    train_text_encoder(
        clip, tokenizers[0], output / "text.safetensors", steps=options.text_steps, batch=48
    )
    train_t5(t5, tokenizers[1], output / "text_2.safetensors", steps=options.text_steps, batch=48)
    pool = encode_pool(
        vae, output / f"pool-{rank}.safetensors", count=options.pool // workers, seed=1000 + rank
    )
    codec = measure_latents(pool)
    data, samples = FlowData(pool, encoders, codec), FlowSamples(vae, encoders, codec)
    flow, guidance = output / "flow.safetensors", output / "guidance.safetensors"
    train_flow(transformer, data, samples, flow, steps=options.flow_steps, batch=16)
    distil_guidance(transformer, data, samples, guidance, steps=options.guidance_steps, batch=16)
    polish_decoder(
        vae,
        create_flow_redraw(transformer, encoders, codec),
        output / "decoder.safetensors",
        steps=options.polish_steps,
        batch=2,
    )
    if rank == 0:
        write_flux_folder(
            output / "model", vae=vae, encoders=encoders, transformer=transformer, codec=codec
        )
        print(f"wrote {output / 'model'}")


if __name__ == "__main__":
    main()
