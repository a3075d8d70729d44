"""Object storage: where a study's artifacts are kept if its workers do not share a folder."""
