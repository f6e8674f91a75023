"""Toolkit for images: files, decoding, batches on the device, augmentation."""
