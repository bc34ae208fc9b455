"""Work that is killed at random moments, done again as the last line says, and compared with work that was not.

`make kill` kills a hundred times; see `jobs` for the work, `moments` for when, and `check` for what is compared.
"""
