"""Captions: cleaned, chosen, or made from a template."""
