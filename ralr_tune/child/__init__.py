"""Training in a child process: the protocol's messages, its channel, and the process itself."""
