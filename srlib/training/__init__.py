"""Training: the loop and its step, settings and schedules, states to resume from, signals.

May import losses, evaluation, networks, data, tiling and files.
"""
