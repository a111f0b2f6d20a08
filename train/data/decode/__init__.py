"""What decodes, crops and resizes images: one engine for each file."""
