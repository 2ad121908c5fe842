"""Makes texts from anywhere fit to be shown: names, messages and addresses of models, files and stores.

Owns the characters that no terminal gets. Knows nothing of streams.
"""

from __future__ import annotations

import re

#: Control characters but tab and line feed, separators of lines, marks that turn the direction of text around, and
#: halves of characters: one in a name could clear a screen or show another name.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Returns `text` with the characters that a terminal would obey as escapes, such as \\x1b."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)
