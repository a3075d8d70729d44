"""What `scheduler.RandomAmplifyLR` is made of.

    draws, rates <- bases <- (scheduler) <- preview

`draws` is pure; the others import torch.
"""
