"""A run as a whole: its plan, what it is built from, its training, evaluation and record; and what is done with it."""
