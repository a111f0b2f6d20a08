"""Training from a manifest: one loop, tasks, losses, and a loader whose randomness is a function."""
