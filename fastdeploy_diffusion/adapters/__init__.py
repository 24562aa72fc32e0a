"""LoRA and its kin: files of changes to a checkpoint's weights."""
