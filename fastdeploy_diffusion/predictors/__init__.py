"""Sub-predictors (text encoder, denoiser, VAE) and the loop that joins them."""
