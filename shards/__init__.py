"""The shard format and the plumbing that every room stands on. No torch in here."""
