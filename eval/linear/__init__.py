"""Linear classifiers on features that are kept: many of them fitted together."""
