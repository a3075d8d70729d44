"""What `doctor` looks at, one file for each part of a machine; each gives `Check`s and leaves nothing behind."""
