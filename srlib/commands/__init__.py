"""Commands: one file for each subcommand of srlib that is more than a few lines; srlib/__main__.py has the others.

May import everything below; but nothing heavy before the command runs, so that --help is quick.
"""
