"""NWPU-RESISC45: 45 kinds of scenes from above, 700 images of 256 pixels each; the rule tests with a fifth."""

from __future__ import annotations

from eval.downstream._folders import Folders
from eval.downstream.base import Rule

__all__ = ["CHECKSUM", "CLASSES", "LAYOUT", "METRIC", "RULE", "TEMPLATES", "load", "splits"]

FOLDERS = (
    "airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral", "church", "circular_farmland",
    "cloud", "commercial_area", "dense_residential", "desert", "forest", "freeway", "golf_course", "ground_track_field", "harbor",
    "industrial_area", "intersection", "island", "lake", "meadow", "medium_residential", "mobile_home_park", "mountain", "overpass",
    "palace", "parking_lot", "railway", "railway_station", "rectangular_farmland", "river", "roundabout", "runway", "sea_ice",
    "ship", "snowberg", "sparse_residential", "stadium", "storage_tank", "tennis_court", "terrace", "thermal_power_station",
    "wetland",
)  # fmt: skip
CLASSES = (
    "airplane", "airport", "baseball diamond", "basketball court", "beach", "bridge", "chaparral", "church", "circular farmland",
    "cloud", "commercial area", "dense residential", "desert", "forest", "freeway", "golf course", "ground track field", "harbor",
    "industrial area", "intersection", "island", "lake", "meadow", "medium residential", "mobile home park", "mountain", "overpass",
    "palace", "parking lot", "railway", "railway station", "rectangular farmland", "river", "roundabout", "runway", "sea ice",
    "ship", "snowberg", "sparse residential", "stadium", "storage tank", "tennis court", "terrace", "thermal power station",
    "wetland",
)  # fmt: skip
TEMPLATES = (
    "a sattelite image of {c}", "an aerial view of {c}", "a sattelite photo of {c}", "{c} from above",
)  # fmt: skip
METRIC = "acc1"
LAYOUT = "NWPU-RESISC45/CLASS/CLASS_001.jpg, as NWPU-RESISC45.rar unpacks"
RULE = Rule("resisc45", val=0.2, test=0.2)
CHECKSUM = "9ab6e93bb5fbd9ea9d54c4f02f96904748ba8d886f3be9d633dfcbcf3d98465d"  # over all published file names


SET = Folders(RULE, FOLDERS, CLASSES, TEMPLATES, METRIC, LAYOUT, ("NWPU-RESISC45",))
splits, load = SET.splits, SET.load
