"""Sample filters: what each measures, and when it refuses. One file each, found by file name."""
