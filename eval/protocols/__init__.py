"""Evaluation protocols. One file each, found by file name; each yields (name, value) pairs."""
