"""What kind of text a caption is, on examples as the web has them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.report.readability import CLASSES, readability
from curate.report.wordcount import count

EXAMPLES = {
    "no_letters": ["", " ", "50", "??????????", "2019-03-02", "😀 👍", "20050325_8245", "1/2"],
    "url": [
        "http://www.teachercertificationdegrees.com/top-blogs/homeschool/", "https://example.org/cat.jpg", "www.flickr.com", "codecov.io",
        "collegehumor.com", "Example.co.uk/shop?id=3", "ftp://x/y",
    ],
    "file_name": [
        "IMG_1234", "img 1234.jpg", "DSC01234", "DSCN0012", "P1000434.JPG", "P1000434", "image001", "photo-3.png", "photo (3)", "Screenshot_2",
        "Screenshot Google Art Project Manet Wintergarten.jpg", "Private hell 36.JPG", "01.jpg", "may-in-hp-laserjet-pro-400-m401dn-cf278a",
        "best-breast-pump-review", "Crop_oktoberfest_old_couple_in_tracht", "ohio-consumers-counsel", "b4c286c3d5", "65c9d45e09 ", "a.webp",
        "_images/index-1.2x.png", "FB_IMG_1512345678901", "2019-ms-tavasz-300x200-the-lab",
    ],
    "boilerplate": [
        "image", "Image 3", "image 1 of 5", "Photo #3", "PHOTO", "stock photo", "Royalty-free vector image", "Company logo", "logo", "thumbnail",
        "untitled", "Untitled.", "no image", "No image available", "image not found", "Image coming soon", "loading...", "click to enlarge",
        "Click here to view larger image", "Click image for details", "View full size", "view larger", "enlarge", "placeholder image", "n/a",
        "profile picture", "featured image", "product image", "[image]", "no caption", "background", "icon", "alt text",
        "Tap to zoom",
    ],
    "single_word": ["dog", "CheCheBlogs", "boop", "Winter!", "#dollypartonchallenge", "skye.", "moxie :)", "3d", "NY", "Übung", "漢字かな", "X3madbull"],
    "words": [
        "a dog", "state of the art", "Image of French Quarter II in Wichita, Kansas", "Profile picture for QUOTE MEDIA FILMS", "Stock Photo of a cat",
        "Maroon Bells Landscape Stock Photo", "a photo of a cat", "download the new album by Bob Marley", "open door", "SIL-67 Denim",
        "view of the sea", "Pure Spectrum droplet logo.", "no image of this painting has ever been shown to the public", "file cabinet in an office",
        "see www.example.org for more", "a jpg of a cat", "Facade, decade", "IMG 12 is my best picture", "e-mail me", "photo by Jane Doe",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), [(text, kind) for kind, texts in EXAMPLES.items() for text in texts])
def test_examples(text: str, kind: str) -> None:
    assert classes([text]) == [kind]


def classes(texts: list[str]) -> list[str]:
    return [CLASSES[i] for i in readability(pa.array(texts, pa.string()), count(texts).lengths)]


def test_captions_do_not_see_each_other() -> None:
    texts = [text for some in EXAMPLES.values() for text in some]
    expected = [kind for kind, some in EXAMPLES.items() for _ in some]
    order = np.random.default_rng(0).permutation(len(texts))
    assert classes([texts[i] for i in order]) == [expected[i] for i in order]
    chunked = pa.chunked_array([texts[:7], [], texts[7:]], pa.string())
    assert [CLASSES[i] for i in readability(chunked, count(texts).lengths)] == expected


def test_no_captions() -> None:
    assert classes([]) == []
