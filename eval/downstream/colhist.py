"""Colorectal histology: eight kinds of tissue in microscope tiles of 150 pixels, 625 each; the rule tests with a fifth."""

from __future__ import annotations

from eval.downstream._folders import Folders
from eval.downstream.base import Rule

__all__ = ["CLASSES", "LAYOUT", "METRIC", "RULE", "TEMPLATES", "load", "splits"]

FOLDERS = (
    "01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO", "05_DEBRIS", "06_MUCOSA", "07_ADIPOSE", "08_EMPTY",
)  # fmt: skip
CLASSES = (
    "tumour epithelium", "simple stroma", "complex stroma", "immune cells", "debris", "mucosal glands", "adipose tissue",
    "background without tissue",
)  # fmt: skip
TEMPLATES = (
    "a histopathology slide showing {c}", "histopathology image of {c}",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "Kather_texture_2016_image_tiles_5000/01_TUMOR/*.tif, as the archive of that name unpacks"
RULE = Rule("colhist", val=0.1, test=0.2)


SET = Folders(RULE, FOLDERS, CLASSES, TEMPLATES, METRIC, LAYOUT, ("Kather_texture_2016_image_tiles_5000",))
splits, load = SET.splits, SET.load
