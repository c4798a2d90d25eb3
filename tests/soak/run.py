"""`python tests/soak/run.py --minutes 30`: load, sample, count, judge."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from soak.command import main

    sys.exit(main())
