"""Reads the answers of object stores in errors of their client: status, code, and advice to a person.

Owns the codes. collectors.lake.retrying decides which errors pass.
"""

from __future__ import annotations

from typing import Any


def http_status(error: BaseException) -> int | None:
    """Returns the store's HTTP status behind `error`; None for another kind of error.

    s3fs reports a failed If-None-Match (412) as OSError(EINVAL), like other faults, so only the cause shows it.
    """
    status = answer_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def answer_of(error: BaseException) -> dict[str, Any]:
    """Returns the store's answer behind `error`, as botocore keeps it; empty for another kind of error."""
    answer = getattr(error.__cause__, "response", None)
    return answer if isinstance(answer, dict) else {}


def advice_on(error: BaseException) -> str:
    """Returns advice about a store's refusal; empty if there is none."""
    code = answer_of(error).get("Error", {}).get("Code")
    if code == "NoSuchBucket":
        return "; make the bucket first"
    if code == "RequestTimeTooSkewed":
        return "; set this machine's clock, which differs from the store's"
    if code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"):
        return "; the credentials have expired: get new ones and run the same command again"
    if http_status(error) in (401, 403):
        return "; see AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and their permissions there"
    return ""
