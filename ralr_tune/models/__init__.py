"""Networks by name: our own, torchvision's, and anybody's by import path (see `registry`)."""
