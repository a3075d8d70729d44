"""The checks of `doctor`, one file per part of a machine; each returns `Check`s and leaves no file behind."""
