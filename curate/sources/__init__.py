"""Readers of native metadata. One file each, found by file name."""
