"""A recurrent layer of neurons over a whole sequence."""
