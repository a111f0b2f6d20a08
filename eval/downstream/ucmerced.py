"""UC Merced Land Use: 21 kinds of land use from above, 100 images of 256 pixels each; the rule tests with a fifth."""

from __future__ import annotations

from eval.downstream._folders import Folders
from eval.downstream.base import Rule

__all__ = ["CHECKSUM", "CLASSES", "LAYOUT", "METRIC", "RULE", "TEMPLATES", "load", "splits"]

FOLDERS = (
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest", "freeway",
    "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway",
    "sparseresidential", "storagetanks", "tenniscourt",
)  # fmt: skip
CLASSES = (
    "agricultural", "airplane", "baseball diamond", "beach", "buildings", "chaparral", "dense residential", "forest", "freeway",
    "golf course", "harbor", "intersection", "medium residential", "mobile home park", "overpass", "parking lot", "river", "runway",
    "sparse residential", "storage tanks", "tennis court",
)  # fmt: skip
TEMPLATES = (
    "a sattelite image of {c}", "an aerial view of {c}", "a sattelite photo of {c}", "{c} from above",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "UCMerced_LandUse/Images/CLASS/CLASS00.tif, as UCMerced_LandUse.zip unpacks"
RULE = Rule("ucmerced", val=0.1, test=0.2)
CHECKSUM = "a51378d90f6225acdfbb68236e857d5a5d3badc0236f305e26346fc15858de4f"  # over all published file names


SET = Folders(RULE, FOLDERS, CLASSES, TEMPLATES, METRIC, LAYOUT, ("Images", "UCMerced_LandUse/Images"))
splits, load = SET.splits, SET.load
