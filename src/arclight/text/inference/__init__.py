"""Raw text as input of a trained tagger: sentences and words with offsets, windows, perturbations."""
