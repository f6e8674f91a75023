"""Data sets as LightningDataModules: raw files in, batches on the device out."""
