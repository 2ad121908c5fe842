"""What the Hub's refusals of a model mean, whichever client asked for it."""

from __future__ import annotations

from huggingface_hub import errors

from schemas.failures import ModelError

#: The client's HTTP library raises this when nothing answers: the first base of the Hub's own error.
TRANSPORT_ERROR: type[Exception] = errors.HfHubHTTPError.__bases__[0]

_NOT_THERE = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)


def refusal(error: Exception, what: str) -> ModelError | None:
    """The error that a person is shown where the Hub answered that `what` cannot be had; None for another error."""
    if isinstance(error, errors.GatedRepoError):
        return ModelError(f"{what} is gated: accept its terms on the hub and set HF_TOKEN", "gated")
    if isinstance(error, errors.DisabledRepoError):
        return ModelError(f"{what} was disabled by the hub", "not_found")
    if isinstance(error, _NOT_THERE):
        return ModelError(f"the hub has no {what} at this revision, or HF_TOKEN may not see it", "not_found")
    return None
