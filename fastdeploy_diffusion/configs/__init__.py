"""The presets that ship with the package, a YAML file each: `DiffusionConfig.from_preset`."""

if __name__ != "fastdeploy_diffusion.configs":
    raise ImportError(
        f"{__name__!r} is only a link to a folder of the package: "
        "import fastdeploy_diffusion.configs instead"
    )
