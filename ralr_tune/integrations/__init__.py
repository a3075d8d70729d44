"""Callbacks with which other frameworks train a trial, one file for each framework.

Each file imports its framework: install it with the extra of the same name, as `pip install 'ralr-tune[lightning]'`.
"""
