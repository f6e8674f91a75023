"""LightningModules of this project."""
