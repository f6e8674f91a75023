"""LightningModules to inherit from, and layers that nets of any task use."""
