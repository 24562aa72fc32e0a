"""The section for embeddings of texts that were encoded before."""

from pydantic import Field

from fastdeploy_diffusion.config.sections import ConfigSection


class EmbeddingCacheConfig(ConfigSection):
    """How much room embeddings of texts may take; 0 keeps none there."""

    memory_mib: float = Field(
        default=256.0,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="MiB of memory for embeddings of texts: a number from 0 to 1,000,000,000",
    )
    disk_mib: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="MiB on disk for embeddings of texts: a number from 0 to 1,000,000,000",
    )
