"""Makes texts from anywhere fit to be shown and stored: names, messages and addresses of models, files and stores.

Owns the characters that no terminal gets, and the forms of keys that stand nowhere: a user in an address, a signature
in its query, a token in a text. Knows nothing of streams and tables.
"""

from __future__ import annotations

import re
from typing import Any

#: Control characters but tab and line feed, separators of lines, marks that turn the direction of text around, and
#: halves of characters: one in a name could clear a screen or show another name.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

#: An address with its scheme, and stores that are chained before it, up to a blank or a quote.
_ADDRESS = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>`\\]+""")
#: The user of an address, which may hold a key: all before the last '@' of its host. A revision of the hub has a '/'
#: before its '@'.
_USER = re.compile(r"(://)[^/?#]*@")
_QUERY = re.compile(r"(?:\?|#(?=[^#]*=)).*", re.S)
#: Names of values that are keys. `tokens` and `tokenizer` are not.
_KEY_NAME = r"token(?!s|iz)|secret|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key"
_KEY_QUERY = re.compile(rf"[?&#;](?:[^=&#]*(?:{_KEY_NAME})[^=&#]*|sig|auth|key)=", re.I)
#: Keys by their own form: of AWS, the Hugging Face hub, OpenAI and GitHub; of an HTTP header; and behind such a name.
_TOKENS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
)
_HEADER = re.compile(r"(?i)\b(bearer|authorization: *basic) +[A-Za-z0-9._~+/=-]{12,}")
_NAMED = re.compile(rf"""(?i)([\w-]*(?:{_KEY_NAME})[\w-]*=)["']?[^\s"',;&)]+""")
#: What stands in place of a key.
CUT = "…"


def visible(text: str) -> str:
    """Returns `text` with the characters that a terminal would obey as escapes, such as \\x1b."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


def holds_keys(address: str) -> bool:
    """Whether the address of a model or lake, or one of a chain of stores, holds a user, a query or a token."""
    for part in address.split("::"):
        if "://" in part and (_USER.search(part) or _QUERY.search(part)):
            return True
    return _TOKENS.search(address) is not None


def without_keys(text: str) -> str:
    """Returns `text` with CUT in place of keys: users in addresses, queries that hold a signature, tokens."""
    if "://" in text:
        text = _ADDRESS.sub(lambda match: _cut_address(match[0]), text)
    text = _TOKENS.sub(CUT, text)
    if "=" in text:
        text = _NAMED.sub(rf"\1{CUT}", text)
    return _HEADER.sub(rf"\1 {CUT}", text) if " " in text else text


def without_key_values(value: Any) -> Any:
    """Returns a value of a config or of JSON with keys cut, also those that stand behind a key's name."""
    if isinstance(value, str):
        return without_keys(value)
    if isinstance(value, dict):
        cut = {name: CUT if _is_key(name, one) else without_key_values(one) for name, one in value.items()}
        return {without_keys(str(name)): one for name, one in cut.items()}
    if isinstance(value, list | tuple):
        return [without_key_values(one) for one in value]
    return value


def _is_key(name: object, value: object) -> bool:
    return isinstance(value, str) and bool(value) and re.search(_KEY_NAME, str(name), re.I) is not None


def _cut_address(address: str) -> str:
    parts = []
    for part in address.split("::"):
        part = _USER.sub(rf"\1{CUT}@", part)
        parts.append(_QUERY.sub(f"?{CUT}", part) if _KEY_QUERY.search(part) else part)
    return "::".join(parts)
