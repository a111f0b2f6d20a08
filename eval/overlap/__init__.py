"""Test images that a model has seen in training: found by uid, by bytes and by perceptual hash, shown, and left out on request."""
