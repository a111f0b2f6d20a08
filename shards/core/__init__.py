"""Errors, configuration, plug-ins, files, console and the engine: what all four rooms share."""
