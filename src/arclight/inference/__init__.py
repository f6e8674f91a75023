"""Using a trained model: items in, prediction records out, for images, texts and tensors."""
