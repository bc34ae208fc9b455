"""How good a surrogate is, in every measure that somebody may ask for, beside what knows nothing."""
