"""Importing this loads what a report takes long to load: a build does it while its workers get ready."""

import jinja2  # noqa: F401
import matplotlib.backends.backend_svg  # noqa: F401

import curate.report.build
import curate.report.spectrum  # noqa: F401
from curate.filters import language

language._identifier()  # unpacks the model
