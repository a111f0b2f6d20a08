"""Losses: tensors become a scalar. One file each, found by file name."""
