"""Words for what latents respond to, and whether to believe them. Nothing here imports torch."""
