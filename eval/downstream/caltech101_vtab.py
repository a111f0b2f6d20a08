"""Caltech-101 as VTAB has it: 102 classes with the background among them; the rule takes 30 a class to train."""

from __future__ import annotations

from eval.downstream._folders import Folders
from eval.downstream.base import PER_CLASS, Rule

__all__ = ["CLASSES", "LAYOUT", "METRIC", "RULE", "TEMPLATES", "load", "splits"]

FOLDERS = (
    "accordion", "airplanes", "anchor", "ant", "BACKGROUND_Google", "barrel", "bass", "beaver", "binocular", "bonsai", "brain",
    "brontosaurus", "buddha", "butterfly", "camera", "cannon", "car_side", "ceiling_fan", "cellphone", "chair", "chandelier",
    "cougar_body", "cougar_face", "crab", "crayfish", "crocodile", "crocodile_head", "cup", "dalmatian", "dollar_bill", "dolphin",
    "dragonfly", "electric_guitar", "elephant", "emu", "euphonium", "ewer", "Faces", "Faces_easy", "ferry", "flamingo",
    "flamingo_head", "garfield", "gerenuk", "gramophone", "grand_piano", "hawksbill", "headphone", "hedgehog", "helicopter", "ibis",
    "inline_skate", "joshua_tree", "kangaroo", "ketch", "lamp", "laptop", "Leopards", "llama", "lobster", "lotus", "mandolin",
    "mayfly", "menorah", "metronome", "minaret", "Motorbikes", "nautilus", "octopus", "okapi", "pagoda", "panda", "pigeon", "pizza",
    "platypus", "pyramid", "revolver", "rhino", "rooster", "saxophone", "schooner", "scissors", "scorpion", "sea_horse", "snoopy",
    "soccer_ball", "stapler", "starfish", "stegosaurus", "stop_sign", "strawberry", "sunflower", "tick", "trilobite", "umbrella",
    "watch", "water_lilly", "wheelchair", "wild_cat", "windsor_chair", "wrench", "yin_yang",
)  # fmt: skip
CLASSES = (
    "accordion", "airplane", "anchor", "ant", "background", "barrel", "bass", "beaver", "binocular", "bonsai", "brain",
    "brontosaurus", "buddha", "butterfly", "camera", "cannon", "side of a car", "ceiling fan", "cellphone", "chair", "chandelier",
    "body of a cougar cat", "face of a cougar cat", "crab", "crayfish", "crocodile", "head of a crocodile", "cup", "dalmatian",
    "dollar bill", "dolphin", "dragonfly", "electric guitar", "elephant", "emu", "euphonium", "ewer", "off-center face",
    "centered face", "ferry", "flamingo", "head of a flamingo", "garfield", "gerenuk", "gramophone", "grand piano", "hawksbill",
    "headphone", "hedgehog", "helicopter", "ibis", "inline skate", "joshua tree", "kangaroo", "ketch", "lamp", "laptop", "leopard",
    "llama", "lobster", "lotus", "mandolin", "mayfly", "menorah", "metronome", "minaret", "motorbike", "nautilus", "octopus",
    "okapi", "pagoda", "panda", "pigeon", "pizza", "platypus", "pyramid", "revolver", "rhino", "rooster", "saxophone", "schooner",
    "scissors", "scorpion", "sea horse", "snoopy (cartoon beagle)", "soccer ball", "stapler", "starfish", "stegosaurus", "stop sign",
    "strawberry", "sunflower", "tick", "trilobite", "umbrella", "watch", "water lilly", "wheelchair", "wild cat", "windsor chair",
    "wrench", "yin and yang symbol",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {c}.", "a painting of a {c}.", "a plastic {c}.", "a sculpture of a {c}.", "a sketch of a {c}.",
    "a tattoo of a {c}.", "a toy {c}.", "a rendition of a {c}.", "a embroidered {c}.", "a cartoon {c}.", "a {c} in a video game.",
    "a plushie {c}.", "a origami {c}.", "art of a {c}.", "graffiti of a {c}.", "a drawing of a {c}.", "a doodle of a {c}.",
    "a photo of the {c}.", "a painting of the {c}.", "the plastic {c}.", "a sculpture of the {c}.", "a sketch of the {c}.",
    "a tattoo of the {c}.", "the toy {c}.", "a rendition of the {c}.", "the embroidered {c}.", "the cartoon {c}.",
    "the {c} in a video game.", "the plushie {c}.", "the origami {c}.", "art of the {c}.", "graffiti of the {c}.",
    "a drawing of the {c}.", "a doodle of the {c}.",
)  # fmt: skip
METRIC = PER_CLASS
LAYOUT = "101_ObjectCategories/CLASS/image_0001.jpg, as caltech-101.zip and 101_ObjectCategories.tar.gz in it unpack"
RULE = Rule("caltech101", shots=30)


SET = Folders(
    RULE,
    FOLDERS,
    CLASSES,
    TEMPLATES,
    METRIC,
    LAYOUT,
    ("101_ObjectCategories", "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories"),
)
splits, load = SET.splits, SET.load
