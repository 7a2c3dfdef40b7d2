"""Show: figures, the seam viewer and the report; what the notebooks put before one's eyes.

May import every other room; nothing but the command imports this one.
"""
