"""What a pre-trained model is worth elsewhere: protocols, downstream sets, an append-only results table."""
