"""For people's own training code: the trial that a function or a script trains, in a study or by itself.

    link <- trial <- keeping, random_states;   alone (no study);   serve (the process that a worker starts)

What the worker does with it is in `child`. Importing `trial` imports neither torch nor Optuna.
"""
