"""Parameter groups, learning-rate schedulers and optimizers."""
