"""A service that answers for radiographs over HTTP, from an exported folder alone."""
