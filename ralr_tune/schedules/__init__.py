"""Learning rates as pure functions of the position in a run: base curves and random perturbations of them.

    checks <- curves, perturbation <- amplification, noise <- rate, scheduler;   suggest

Only `scheduler` imports torch.
"""
