"""Turn pip's talk into progress for `make setup`: a line now and then, the errors in full, and what it came to."""

from __future__ import annotations

import os
import re
import sys
import time

EVERY = 10.0  # seconds between two lines of progress
PACKAGE = re.compile(
    r"^\s*(?:Downloading|Processing|Using cached)\s+(?:\S*/)?([A-Za-z0-9_.-]+?)-\d\S*\.(?:whl|tar\.gz)(?:.*\(([\d.]+ [kMG]B)\))?"
)


def main() -> None:
    """Read pip's output from stdin; write progress to stderr."""
    started = said = time.monotonic()
    packages = 0
    is_done = False
    for line in sys.stdin:
        text = line.rstrip()
        package = PACKAGE.match(text)
        if package:
            packages += 1
            size = f" ({package[2]})" if package[2] else ""
            if time.monotonic() - said > EVERY or "GB" in size:
                print(f"setup: {packages} packages, {time.monotonic() - started:.0f} s: {package[1]}{size}", file=sys.stderr, flush=True)
                said = time.monotonic()
        elif text.startswith("Installing collected packages"):
            print(f"setup: {packages} packages are here after {time.monotonic() - started:.0f} s; unpacking", file=sys.stderr, flush=True)
        elif text.startswith("Successfully installed"):
            is_done = True
        elif re.match(r"\s*(ERROR|error)\b", text):
            print(text, file=sys.stderr, flush=True)
    if not is_done:
        sys.exit("setup: pip has failed; what it says stands above")
    seconds = time.monotonic() - started
    print(f"setup: done in {seconds:.0f} s, {size_of(sys.prefix) / 1e9:.1f} GB in {os.path.relpath(sys.prefix)}", file=sys.stderr)


def size_of(folder: str) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in names)
    return total


if __name__ == "__main__":
    main()
