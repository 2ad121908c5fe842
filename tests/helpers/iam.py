"""AWS policies as far as this project's use them: their grammar, and whether one allows a request.

After the IAM User Guide, "Grammar of the IAM JSON policy language" and "Policy evaluation logic": an explicit Deny
wins, then an Allow, else no. Raises AssertionError for anything outside the part of the grammar that is used here.
"""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

from tests.helpers.s3_requests import Asked

Statement = dict[str, Any]

ACCOUNT = "arn:aws:iam::111122223333:role/routerlake-"
_REQUIRED = {"Sid", "Effect", "Action", "Resource"}
#: Condition operators and keys, with the values that they are compared with.
_CONDITIONS = {
    ("Null", "s3:if-none-match"),
    ("Bool", "s3:ObjectCreationOperation"),
    ("Bool", "aws:SecureTransport"),
}
_ACTIONS = {"s3:*", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}


def read_policy(path: Path, *, of_bucket: bool) -> list[Statement]:
    """The statements of a policy of a bucket, which names principals, or of an identity, which does not."""
    policy = json.loads(path.read_text(encoding="utf-8"))
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement) - {"Condition"} == _REQUIRED | ({"Principal"} if of_bucket else set()), statement
        assert re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        assert statement["Effect"] in ("Allow", "Deny")
        assert set(listed(statement["Action"])) <= _ACTIONS, statement["Action"]
        for resource in listed(statement["Resource"]):
            assert re.fullmatch(r"arn:aws:s3:::[\w.*-]+(/[\w./*-]+)?", resource), resource
        for operator, tests in statement.get("Condition", {}).items():
            for key, value in tests.items():
                assert (operator, key) in _CONDITIONS, (operator, key)
                assert value in ("true", "false")
        if of_bucket:
            for principal in _principals(statement):
                assert re.fullmatch(r"\*|arn:aws:iam::\d{12}:role/[\w+=,.@-]+", principal), principal
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    return list(policy["Statement"])


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def deciding(statements: list[Statement], role: str | None, asked: Asked) -> tuple[str, str] | None:
    """(effect, Sid) of the statement that decides over `asked` by `role` (None: of an identity policy); None: none."""
    hits = [s for s in statements if _speaks_of(s, role, asked)]
    for effect in ("Deny", "Allow"):
        for statement in hits:
            if statement["Effect"] == effect:
                return effect, statement["Sid"]
    return None


def allows(statements: list[Statement], role: str | None, asked: Asked) -> bool:
    decided = deciding(statements, role, asked)
    return decided is not None and decided[0] == "Allow"


def _principals(statement: Statement) -> list[str]:
    principal = statement["Principal"]
    if principal == "*":
        return ["*"]
    assert set(principal) == {"AWS"}
    return listed(principal["AWS"])


def _speaks_of(statement: Statement, role: str | None, asked: Asked) -> bool:
    if role is not None and not {"*", ACCOUNT + role} & set(_principals(statement)):
        return False
    place = f"arn:aws:s3:::{asked.bucket}" + (f"/{asked.key}" if asked.key else "")
    return (
        any(fnmatch.fnmatchcase(asked.action, action) for action in listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(place, resource) for resource in listed(statement["Resource"]))
        and all(_holds(o, k, v, asked) for o, tests in statement.get("Condition", {}).items() for k, v in tests.items())
    )


def _holds(operator: str, key: str, value: str, asked: Asked) -> bool:
    if (operator, key) == ("Null", "s3:if-none-match"):
        return (not asked.if_none_match) == (value == "true")
    there = {"s3:ObjectCreationOperation": asked.creates, "aws:SecureTransport": True}
    return there[key] == (value == "true")
