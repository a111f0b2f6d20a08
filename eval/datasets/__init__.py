"""Downstream sets. One file each, found by file name."""
