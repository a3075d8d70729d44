"""Networks by name: this package's, torchvision's, and the user's own by import path (see `registry`)."""
