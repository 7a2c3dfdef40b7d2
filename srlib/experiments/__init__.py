"""Experiments: what each notebook trains and compares, and its parameters.

May import every room but show.
"""
