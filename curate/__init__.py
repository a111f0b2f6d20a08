"""From native metadata and images to exact-size, deduplicated shards: measure, decide, write, report."""
