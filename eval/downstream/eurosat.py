"""EuroSAT: ten kinds of land use in Sentinel-2 images of 64 pixels (RGB); 27,000 images, of which the rule tests with a fifth."""

from __future__ import annotations

from eval.downstream._folders import Folders
from eval.downstream.base import Rule

__all__ = ["CHECKSUM", "CLASSES", "LAYOUT", "METRIC", "RULE", "TEMPLATES", "load", "splits"]

FOLDERS = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential", "River",
    "SeaLake",
)  # fmt: skip
CLASSES = (
    "annual crop land", "forest", "brushland or shrubland", "highway or road", "industrial buildings or commercial buildings",
    "pasture land", "permanent crop land", "residential buildings or homes or apartments", "river", "lake or sea",
)  # fmt: skip
TEMPLATES = (
    "a centered satellite photo of {c}.", "a centered satellite photo of a {c}.", "a centered satellite photo of the {c}.",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "2750/CLASS/CLASS_1.jpg (or EuroSAT_RGB/CLASS), as EuroSAT.zip unpacks"
RULE = Rule("eurosat", val=0.1, test=0.2)
CHECKSUM = "f776d73b680d62ae58e19ac28be553afdcfb4cd835742ca70759247bd05c48c4"  # over all published file names


SET = Folders(RULE, FOLDERS, CLASSES, TEMPLATES, METRIC, LAYOUT, ("2750", "EuroSAT", "EuroSAT_RGB", "eurosat/2750", "EuroSAT/2750"))
splits, load = SET.splits, SET.load
