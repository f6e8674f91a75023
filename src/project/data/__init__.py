"""LightningDataModules of this project."""
