"""Show: figures, the seam viewer and the report; what the notebooks display.

May import every other room; nothing but the command imports this one.
"""
