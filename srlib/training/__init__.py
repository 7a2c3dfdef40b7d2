"""Training: the loop, a run and its steps, settings and schedules, resuming from saved states, stop signals.

May import losses, evaluation, networks, data, tiling and files.
"""
