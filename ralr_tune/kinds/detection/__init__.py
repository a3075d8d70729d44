"""Object detection: boxes with classes in images of any size."""
