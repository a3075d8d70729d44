"""Learning rates as pure functions of the position in a run: base curves, and what perturbs them at random.

    checks <- curves, perturbation <- amplification, noise <- rate, wrapper <- scheduler;   suggest

Only `scheduler` and its parts in `wrapper` import torch.
"""
