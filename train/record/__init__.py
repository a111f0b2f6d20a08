"""What a training says and measures: the log, boards, norms of gradients, arithmetic in use."""
