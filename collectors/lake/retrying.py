"""Tells passing errors of stores, hubs and disks from lasting ones.

Owns that decision for the exceptions of all clients in use (botocore, aiohttp, httpx, huggingface_hub, the operating
system). Knows nothing of waiting and retries.
"""

from __future__ import annotations

import errno

from schemas.failures import causes

#: HTTP statuses after which the same request may succeed later: timeouts, too many requests, broken servers.
LATER = frozenset({408, 429, 500, 502, 503, 504})

#: Error numbers of full disks and quotas, of networks and servers that are away, of file systems without their server.
_ERRNOS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ESTALE, errno.ENOTCONN, errno.EPIPE),
        *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO),
        *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
    }
)

#: Names of error classes. Checking by name avoids the import of the clients.
_CLASSES = frozenset(
    {
        *("ConnectionError", "TimeoutError", "FSTimeoutError"),
        *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"),
        *("ClientConnectionError", "ClientPayloadError", "ResponseStreamingError", "IncompleteReadError"),
        "TransportError",
    }
)
#: Subclasses of these that do not pass: a person wanted them, or has to act.
_NEVER = frozenset({"OfflineModeIsEnabled", "SSLError", "ClientSSLError", "UnsupportedProtocol"})


def may_mend(error: BaseException | None) -> bool:
    """Whether the error may pass by waiting. False for refusals, such as a missing bucket or permission."""
    chain = list(causes(error))
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    statuses = {status for e in chain if (status := _status(e)) is not None}
    if names & _NEVER:
        return False
    if statuses:  # an answer of the store or hub means more than the exception that its client made of it
        return statuses <= LATER
    return bool(names & _CLASSES) or any(getattr(e, "errno", None) in _ERRNOS for e in chain)


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind the error."""
    return any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in causes(error))


def _status(error: BaseException) -> int | None:
    """The HTTP status of the answer in `error`, as botocore or as httpx and requests store it; None without one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
