"""Scripts that train one configuration without this package.

`bundle` replaces imports of this package by the source they name, `text` writes values and calls as Python, `loop` is
what every script runs, `parts` writes what all kinds of task share. A kind's own part is in its folder under `kinds/`.
"""
