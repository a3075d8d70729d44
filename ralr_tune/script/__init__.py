"""Exported scripts that train one configuration without this package.

`bundle` replaces imports of this package by their source, `text` writes values and calls as Python, `loop` is the
training loop of every script, `parts` writes what all kinds share. A kind's own part is in its folder under `kinds/`.
"""
