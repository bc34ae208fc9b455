"""The linear recurrence ``x[t] = a[t] x[t-1] + b[t]``."""
