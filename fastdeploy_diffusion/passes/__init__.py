"""Rewrites of a network, each with an expected number of matches and a numeric proof."""

if __name__ != "fastdeploy_diffusion.passes":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.passes instead"
    )

# Before any module of this room imports Paddle, so that the import is quiet.
import fastdeploy_diffusion.paddle_runtime  # noqa: F401
