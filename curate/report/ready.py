"""Importing this does what a report takes long to do once: a build does it while its workers get ready."""

import curate.report.build
import curate.report.spectrum  # noqa: F401
from curate.filters import language
from curate.report import page, plots

language.identify("a dog")  # unpacks the model
page.compile_templates()
plots.lines("first", "", {"": ([0, 1], [0, 1])}, {"": plots.PALETTE[0]}, x="", y="")  # loads matplotlib and its fonts
