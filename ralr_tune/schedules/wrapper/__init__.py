"""The parts of `scheduler.RandomAmplifyLR`.

    draws, rates <- bases <- (scheduler) <- preview

`draws` is pure; the others import torch.
"""
