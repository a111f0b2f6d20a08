"""Losses: tensors become the losses of samples. One file each, found by file name."""
