"""`python tests/comparison/run.py`: compare, and write docs/comparison.md."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from comparison.command import main

    sys.exit(main())
