"""What kind of text a caption is, so that file names and boilerplate that pose as alt text can be counted.

A caption has the first of these classes that fits, letter case and white space around it aside:

- `no_letters`: no letter of any script.
- `url`: a web address: one word that begins with a scheme or `www.`, or is a domain, maybe with a path (`example.com/cat`).
- `file_name`: it ends in the extension of an image (`sunset at sea.jpg`); or is a camera's or a program's name for a file
  (`IMG_1234`, `DSC 01234`, `image001`, `photo-3`, `Screenshot (2)`); or is one word of a file's or an address's making: three
  parts or more with hyphens or underscores between them (`best-breast-pump-review`), or eight hexadecimal digits and more.
- `boilerplate`: nothing but what a page may say of any picture: that it is one (`image`, `stock photo`, `photo 3 of 5`,
  `company logo`, `untitled`), that it is not there (`no image available`, `loading`), or what to do (`click to enlarge`).
- `single_word`: one word at most, by `wordcount.tokens`.
- `words`: two words or more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VERSION = 1
CLASSES = ("no_letters", "url", "file_name", "boilerplate", "single_word", "words")

# RE2's syntax. Each pattern is held against the whole caption, but for the extension of a file name.
_DOMAINS = "com|net|org|info|edu|gov|io|co|ru|de|uk|fr|nl|it|es|eu|us|ca|au|jp|cn|in|br|pl"
_URL = rf"(?i)^(?:(?:https?|ftp)://\S+|www\.\S+|[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:{_DOMAINS})(?:[/?#]\S*)?)$"

_EXTENSION = r"[^\s.]\.(?:jpe?g|jpe|jfif|png|gif|webp|bmp|tiff?|svg|heic|avif|psd|cr2|nef|ico)$"
_NUMBERS = r"\(?\d+\)?(?:[ _-]\d+)*"
_CAMERA = rf"(?:img|imag|dscn?|dscf|cimg|hpim|mvi|gopr|pxl|fb_img|pict)[ _-]?{_NUMBERS}(?:[_-]\w+)?|(?:p|wp|sam)_?\d{{4,}}(?:_\d+)*"
_PROGRAM = rf"(?:image|photo|picture|pic|foto|bild|file|scan|screen ?shot|untitled|unnamed)(?:[_-]?| ?\(){_NUMBERS}\)?"
_PART = r"[\pL\pN.,+~%()]+"
_FILE_NAME = rf"(?i){_EXTENSION}|^(?:{_CAMERA}|{_PROGRAM}|{_PART}(?:[-_]+{_PART}){{2,}}[-_]*|[0-9a-f]{{8,}})$"

_KINDS = (
    "a|an|the|this|my|our|your|no|missing|empty|blank|default|sample|generic|stock|royalty[ -]free|vector|product|item|detail|article|"
    "blog|post|site|company|user|gallery|main|primary|featured?|profile|cover|header|hero|background|thumbnail|preview|placeholder|"
    "small|large|full|full[ -]size"
)
_PICTURES = (
    "images?|img|photos?|photographs?|pictures?|pics?|graphics?|illustrations?|artwork|figures?|snapshots?|screenshots?|thumbnails?|"
    "thumbs?|previews?|icons?|logos?|avatars?|banners?|covers?|headers?|backgrounds?|wallpapers?|slides?|galler(?:y|ies)|placeholders?|"
    "spacer|advertisement|file|media|untitled|unnamed|undefined|null|none|n/a|title|caption|description|alt|alt(?:ernate)? text"
)
_OF = r"[ _-]?(?:no\.? ?|nr\.? ?|# ?|number )?\(?\d+\)?(?: ?(?:of|/|-) ?\d+)?"
_PICTURE = "(?:image|photo|picture|thumbnail|preview|file)s?"
_STATES = "(?:available|found|missing|removed|coming soon|loading|loaded|displayed|uploaded|pending|unavailable)"
_MISSING = (
    rf"{_PICTURE} (?:is |was |not |currently |no longer )*{_STATES}|no {_PICTURE} (?:is |was |yet |currently )*{_STATES}(?: yet)?|"
    rf"no {_PICTURE}|(?:image )?coming soon|loading(?: {_PICTURE})?"
)
_SIZES = "in|the|a|this|full|fullsize|larger?|bigger|original|high|hi|more|all|size|sized?|res|resolution|version"
_ORDERS = (
    rf"(?:please )?(?:click|tap|hover|press|roll ?over)(?: (?:here|on|the|this|{_PICTURE}|above|below|over|it))*"
    r"(?: (?:to|for)(?: \w+){1,4})?|"
    rf"(?:view|see|show|open|download|enlarge|zoom|expand)(?: (?:{_SIZES}))*(?: (?:{_PICTURE}|gallery|details?))?"
)
_BOILERPLATE = rf"(?i)^\W*(?:(?:(?:{_KINDS})[ -])*(?:{_PICTURES})(?:{_OF})?|{_MISSING}|{_ORDERS})\W*$"
_LONGEST = 12  # words of the longest that the patterns for whole captions are held against


def readability(captions: pa.ChunkedArray | pa.Array, words: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the class of each caption as its place in CLASSES, (n,).

    Args:
        captions: text without nulls.
        words: how many words each has.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = captions.combine_chunks() if isinstance(captions, pa.ChunkedArray) else captions
    texts = pc.utf8_trim_whitespace(texts)
    found = np.where(words > 1, CLASSES.index("words"), CLASSES.index("single_word")).astype(np.int8)
    few = np.flatnonzero(words <= _LONGEST)
    short = texts.take(pa.array(few))
    found[few[_matches(short, _BOILERPLATE)]] = CLASSES.index("boilerplate")
    found[_matches(texts, _FILE_NAME)] = CLASSES.index("file_name")
    found[few[_matches(short, _URL)]] = CLASSES.index("url")
    found[~_matches(texts, r"\pL")] = CLASSES.index("no_letters")
    return found


def _matches(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    import numpy as np
    import pyarrow.compute as pc

    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), np.bool_)
