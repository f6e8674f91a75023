"""A trained model as a file that runs without this project: export, compression, and proof that the answers are the same."""
