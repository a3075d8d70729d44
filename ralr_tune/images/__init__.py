"""Reading pictures and their files: what the kinds of task that train on images share."""
