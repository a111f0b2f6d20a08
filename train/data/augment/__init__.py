"""Augmentation as data: parameters by (seed, epoch, uid), and what applies them to pixels."""
