"""Learning rates as pure functions of the position in a run: base curves, and what perturbs them at random.

    checks <- curves, perturbation <- amplification, noise <- rate, scheduler;   suggest

Only `scheduler` imports torch.
"""
