"""An exported configuration as a Python script that needs nothing of this package but `RandomAmplifyLR`.

`parts` says what a script is made of, `data`, `network` and `rate` make its three parts, `assemble` puts them together.
"""
