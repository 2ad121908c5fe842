"""A lake or published version as a static site that a person browses without a server."""
