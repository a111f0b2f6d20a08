"""Downstream sets by name. One file each, found by file name; each reads the files as their makers publish them."""
