"""The verbs of `train` that do not train: check, list, seen, export, and the profile of a training."""
