"""What tests of the collectors share."""

from tests.object_store import object_store

__all__ = ["object_store"]
