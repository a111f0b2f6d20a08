"""Image and text towers, heads, and the way to and from checkpoints of others."""
