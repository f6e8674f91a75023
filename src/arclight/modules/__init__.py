"""LightningModules to inherit from, and layers for nets of any kind."""
