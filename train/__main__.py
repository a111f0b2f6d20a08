"""`python -m train`, which is what torchrun starts: `torchrun --nproc-per-node 8 -m train clip …`."""

from __future__ import annotations

import sys

from train.cli import main

if __name__ == "__main__":
    sys.exit(main())
