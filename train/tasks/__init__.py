"""Training tasks: a batch becomes losses. One file each, found by file name."""
