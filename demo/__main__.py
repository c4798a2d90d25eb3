"""`python -m idemwatch.demo`."""

from __future__ import annotations

from .commands import demo

if __name__ == "__main__":
    demo(prog_name="make demo ARGS=...")
