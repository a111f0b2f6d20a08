"""From shards to batches: the order, where samples lie, decoding, augmentation as data, and the loader that joins them."""
