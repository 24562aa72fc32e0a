"""Engines that run networks: one contract (`base`, `session`), and a small file for each engine."""

if __name__ != "fastdeploy_diffusion.engines":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.engines instead"
    )
