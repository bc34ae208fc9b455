"""The resonate-and-fire neurons of S5-RF over a whole sequence."""
