"""Learning rates as pure functions of the position in a run: base curves and random perturbations of them.

    checks <- curves, perturbation <- amplification, noise <- rate, wrapper <- scheduler;   suggest

Only `scheduler` and its parts in `wrapper` import torch.
"""
