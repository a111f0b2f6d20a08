"""Intervals, tests and fits: pure functions of arrays, each with its source. Nothing here reads a file or knows of a row."""
