"""Nets of this project: torch.nn.Modules from tensors to logits."""
