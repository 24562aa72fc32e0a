"""Rewrites of a network, each with an expected number of matches and a numeric proof."""

if __name__ != "fastdeploy_diffusion.passes":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.passes instead"
    )
