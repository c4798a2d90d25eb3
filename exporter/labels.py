"""Values of labels: none longer than a Prometheus keeps gladly, and each still another."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

LONGEST_LABEL: Final = 200


def label(text: str) -> str:
    """A label's value: what is too long is cut, and stays another than what begins alike."""
    if len(text) <= LONGEST_LABEL:
        return text
    digest = blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return f"{text[: LONGEST_LABEL - 9]}~{digest}"
