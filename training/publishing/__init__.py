"""A series on a Hub: a branch a checkpoint, the data beside it, and the cards that a release owes its readers."""
