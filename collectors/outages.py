"""Which errors of stores, hubs and disks pass by themselves.

Owns that judgement, over the exceptions of all clients in use (botocore, aiohttp, httpx, huggingface_hub, the operating
system). Knows nothing of who waits, or how long.
"""

from __future__ import annotations

import errno

from schemas.failures import causes

#: Answers after which the same request may succeed: too slow, too busy, broken at the moment.
LATER = frozenset({408, 429, 500, 502, 503, 504})

#: A full disk or quota, a network or server that is away, a file system that lost its server.
_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ESTALE, errno.ENOTCONN, errno.EPIPE),
        *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    }
)

#: Classes of errors, by name: clients are not imported to ask.
_CLASSES = frozenset(
    {
        *("ConnectionError", "TimeoutError", "FSTimeoutError"),
        *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"),
        *("ClientConnectionError", "ClientPayloadError", "ResponseStreamingError", "IncompleteReadError"),
        "TransportError",
    }
)
#: What looks like one of these and is not: a person asked for it, or has to act.
_NEVER = frozenset({"OfflineModeIsEnabled", "SSLError", "ClientSSLError", "UnsupportedProtocol"})


def may_mend(error: BaseException | None) -> bool:
    """Whether waiting may mend what `error` says. False for refusals, such as a missing bucket or permission."""
    chain = list(causes(error))
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    statuses = {status for e in chain if (status := _status(e)) is not None}
    if names & _NEVER:
        return False
    if statuses:  # the store or hub did answer: that tells more than what its client made of it
        return statuses <= LATER
    return bool(names & _CLASSES) or any(getattr(e, "errno", None) in _ERRNOS for e in chain)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an answer that `error` carries, as botocore or as httpx and requests keep it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
