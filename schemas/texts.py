"""Makes texts from anywhere fit to be shown and stored: names, messages and addresses of models, files and stores.

Owns the characters that no terminal gets, and the forms of keys that stand nowhere: a user in an address, a signature
in its query, a token in a text. Knows nothing of streams and tables.
"""

from __future__ import annotations

import re
from typing import Any

#: Control characters but tab and line feed, separators of lines, marks that turn the direction of text around, halves
#: of characters, and those without a width but joiners: one in a name could clear a screen or show another name.
UNSEEN = (
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    r"\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_UNSEEN = re.compile(UNSEEN)

#: An address with its scheme, and stores that are chained before it, up to a blank or a quote.
_ADDRESS = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>`\\]+""")
#: Any character of a key but '@', and quotes only where they end no text of JSON.
_OF_KEY = r"""(?:[^@\s"']|["'](?![,:)\]}\s]|$))"""
#: The user of an address, which may hold a key: all before the last '@' of its host. A revision of the hub has a '/'
#: before its '@'.
_USER = re.compile(rf"(:\\?/\\?/)(?:(?!/){_OF_KEY})*@")
#: A user with a password, which may hold '/', blanks and all else.
_PASSWORD = re.compile(
    rf"""(?P<scheme>:\\?/\\?/)(?P<user>[^\s/?#:@"'<>]*):(?![\s:/])"""
    rf"""(?P<rest>(?:{_OF_KEY}|[ \t]){{1,300}}?)@(?:{_OF_KEY}*@)*"""
)
#: The user of an address that is a part of another, with its marks encoded once or several times.
_ENCODED_USER = re.compile(r"""(?i)(%(?:25){0,3}3A(?:%(?:25){0,3}2F|/){2})[^\s"'<>&]{0,400}(%(?:25){0,3}40)""")
_PORT = re.compile(r"\d{1,5}(?!\d)")
_QUERY = re.compile(r"(?:\?|#(?=[^#]*=)|;(?=\w*session\w*=)).*", re.S)
#: Names of values that are keys. `tokens` and `tokenizer` are not.
_SECRET = (
    r"secret|passw(?:or)?d|passphrase|signature|credential|key[_-]?pair[_-]?id|"
    r"(?:api|access|auth|account|private|session|shared|signing)[_-]?key"
)
_KEY_NAME = rf"token(?!s|iz)|{_SECRET}"
_KEY_QUERY = re.compile(
    rf"[?&#;](?:[^=&#]*(?:{_KEY_NAME})[^=&#]*|sig|auth|key|pwd|pass|jwt|code|policy|sas|pat|\w*session\w*)=", re.I
)
#: Such names of values of any type. `eos_token` is a text, and `per_token` a number that is none.
_TOKEN = "".join(f"(?<!{word}[_-])" for word in ("bos", "eos", "pad", "unk", "sep", "cls", "per", "end")) + "token"
_NAME_OF_ANY = re.compile(rf"(?i){_SECRET}|{_TOKEN}$|^(?:sig|auth|authorization|bearer|pwd|pass|jwt|sas|pat|cookie)$")
#: Keys by their own form: of AWS, Google, the Hugging Face hub, OpenAI and others that follow it, GitHub, GitLab and
#: Slack, and signed tokens of the web.
_TOKENS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}|\bya29\.[0-9A-Za-z_-]{20,}|\bhf_[A-Za-z0-9]{20,}|"
    r"\b(?:sk|gsk|nvapi|xai|pplx|glpat|glptt|pypi)[-_][A-Za-z0-9_-]{20,}|"
    r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bxox[a-z]-[A-Za-z0-9-]{10,}|"
    r"\br8_[A-Za-z0-9]{30,}|\bdapi[0-9a-f]{32}|\bnpm_[A-Za-z0-9]{30,}|\bdckr_pat_[A-Za-z0-9_-]{20,}|"
    r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    re.S,
)
_BARE = r"""[^\s"'\\,;&)}\]]+"""
_VALUE = (
    r"""(?P<value>"(?:[^"\\]|\\.){0,4000}"|\\"(?:[^"\\]|\\[^"]){0,4000}\\"|'[^'\n]{0,4000}'|"""
    rf"""\\?["']?{_BARE})"""
)
_HEADER = re.compile(
    r"""(?i)(\bbearer +)[A-Za-z0-9._~+/=-]{12,}|(\bauthorization\\?["']?\s*[:=]\s*\\?["']?)"""
    rf"""(?:((?:bearer|basic|token|digest|apikey|negotiate|key|oauth|sharedkey)\s+){_BARE}|[A-Za-z0-9._~+/=-]{{16,}})"""
)
_COOKIE = re.compile(r"""(?i)(\b(?:set-)?cookie\\?["']?\s*[:=]\s*\\?["']?)[^\s=;,"']+=[^\r\n"']+""")
#: A key in a server's sentence: long, with a digit and a small letter, as no name of a variable is.
_SAID = re.compile(
    r"""(?i)(\b(?:api[ _-]?key|token|password|secret)(?: (?:provided|given|was|is|not))*:?\s+["'(]?)"""
    r"""(?-i:(?=[^\s"'),;]*\d)(?=[^\s"'),;]*[a-z])[A-Za-z0-9._~+/=-]{16,})"""
)
#: A key behind its name, or what may be one: joined by '=', in JSON, in a header, or behind an option.
_NAMED = re.compile(
    rf"""(?aix) (?P<word>{_KEY_NAME}|pwd|jwt|sig|sas) (?P<rest>[\w-]{{0,60}})
    (?P<joint>\ {{0,9}}=(?!=)\ {{0,9}} | (?P<quote>\\?["'])\s{{0,9}}:\s{{0,9}} | :\ {{1,9}} | \ {{1,9}}(?!-))
    {_VALUE}"""
)
_WORDS = ("token", "secret", "passw", "passphrase", "signature", "credential", "key", "pwd", "jwt", "sig", "sas")
#: Names of such keys before a colon, where prose has other words.
_HEADER_NAME = re.compile(
    r"(?i)(?:(?:api|access|auth|account|private|secret)[_-]?key|passw(?:or)?d|passphrase|pwd|[\w-][_-](?:secret|token)|"
    r"(?-i:[a-z](?:Secret|Token)))$"
)
#: What stands there where no key does.
_NO_KEY = frozenset(("null", "none", "true", "false", '""', "''", '\\"\\"'))
#: What stands in place of a key.
CUT = "…"
#: For RE2: a text without any of these holds no key.
MAY_HOLD = (
    r":\\?/|(?i:%3A|%253A|cookie|begin |token|secret|passw|passphrase|signature|credential|key|pwd|jwt|sig=|sas=|"
    r"session|bearer|authorization)|"
    r"hf_|sk[-_]|AKIA|ASIA|AIza|ya29|nvapi|xai|pplx|glp|pypi|gh[pousr]_|xox|eyJ|r8_|dapi|npm_|dckr_"
)


def visible(text: str) -> str:
    """Returns `text` with the characters that a terminal would obey as escapes, such as \\x1b."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


def holds_keys(address: str) -> bool:
    """Whether the address of a model or lake, or one of a chain of stores, holds a user, a query or a token."""
    if any(_is_user(match) for match in _PASSWORD.finditer(address)):
        return True
    for part in address.split("::"):
        if "://" in part and (_USER.search(part) or _QUERY.search(part)):
            return True
    return _TOKENS.search(address) is not None


def without_keys(text: str) -> str:
    """Returns `text` with CUT in place of keys: users in addresses, queries that hold a signature, tokens."""
    if ":/" in text or ":\\/" in text:
        text = _PASSWORD.sub(lambda match: f"{match['scheme']}{CUT}@" if _is_user(match) else match[0], text)
        text = _USER.sub(rf"\1{CUT}@", text)
        text = _ADDRESS.sub(lambda match: _cut_address(match[0]), text)
    text = _ENCODED_USER.sub(rf"\1{CUT}\2", text) if "%" in text else text
    text = _HEADER.sub(lambda match: "".join(filter(None, match.groups())) + CUT, _TOKENS.sub(CUT, text))
    text = _SAID.sub(rf"\1{CUT}", _COOKIE.sub(rf"\1{CUT}", text))
    lowered = text.lower()
    return _without_named(text) if any(word in lowered for word in _WORDS) else text


def without_queries(text: str) -> str:
    """Returns `text` without keys, and without the query of any address: a signed one may have any name."""
    text = _ADDRESS.sub(lambda match: _QUERY.sub(f"?{CUT}", match[0]), text)
    return without_keys(text)


def without_key_values(value: Any) -> Any:
    """Returns a value of a config or of JSON with keys cut, also those that stand behind a key's name."""
    if isinstance(value, str):
        return without_keys(value)
    if isinstance(value, dict):
        cut = {name: _of_name(name, one) for name, one in value.items()}
        return {without_keys(str(name)): one for name, one in cut.items()}
    if isinstance(value, list | tuple):
        return [without_key_values(one) for one in value]
    return value


def holds_key_values(value: Any) -> bool:
    """Whether without_key_values would cut anything."""
    if isinstance(value, str):
        return without_keys(value) != value
    if isinstance(value, dict):
        return any(
            _is_key(name, one) or _has_headers(name, one) or holds_key_values([str(name), one])
            for name, one in value.items()
        )
    return isinstance(value, list | tuple) and any(map(holds_key_values, value))


def _of_name(name: object, value: Any) -> Any:
    """The value of a name with keys cut. Of headers any may be one."""
    if _is_key(name, value):
        return CUT
    if _has_headers(name, value):
        return dict.fromkeys(value, CUT)
    return without_key_values(value)


def _has_headers(name: object, value: object) -> bool:
    return isinstance(value, dict) and any(value.values()) and re.search(r"(?i)headers$", str(name)) is not None


def _is_key(name: object, value: object) -> bool:
    if not value or isinstance(value, bool):
        return False
    if _NAME_OF_ANY.search(str(name)):
        return True
    return isinstance(value, str) and re.search(_KEY_NAME, str(name), re.I) is not None


def _is_user(match: re.Match[str]) -> bool:
    """Whether it is a user with a password, and not a host with its port before an '@' of something else."""
    if not _PORT.match(match["rest"]):
        return True
    is_host = "." in match["user"] or match["user"] == "localhost"
    return not is_host and re.search(r"\s", match["rest"]) is None


def _without_named(text: str) -> str:
    parts, done, place = [], 0, 0
    while match := _NAMED.search(text, place):
        place = match.end("word")
        if _names_a_key(text, match) and match["value"].lower() not in _NO_KEY:
            place = match.end()
            value = match["value"]
            has_end = len(value) > 1 and value[-1] in "\"'"
            quote = value[: len(value) - len(value.lstrip("\\\"'"))] if has_end else match["quote"] or ""
            parts += [text[done : match.start("value")], quote, CUT, quote]
            done = place
    return "".join([*parts, text[done:]])


def _names_a_key(text: str, match: re.Match[str]) -> bool:
    joint, word = match["joint"].strip(), match["word"].lower()
    before = text[max(0, match.start() - 60) : match.start()]
    if joint == "=" and match["joint"] == "=":
        return word not in ("pwd", "jwt", "sig", "sas") or not re.search(r"\w$", before)
    name = re.search(r"[\w-]*$", before)[0] + match["word"] + match["rest"]  # type: ignore[index]
    if not _NAME_OF_ANY.search(name):
        return False
    return joint == "=" or bool(match["quote"]) or name.startswith("--") or bool(joint and _HEADER_NAME.search(name))


def _cut_address(address: str) -> str:
    parts = [_QUERY.sub(f"?{CUT}", part) if _KEY_QUERY.search(part) else part for part in address.split("::")]
    return "::".join(parts)
