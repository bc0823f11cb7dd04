"""A small trainer that makes a series of checkpoints from scratch, and the data they were trained on.

`python -m training prepare` writes the data, `python -m training run` trains; README.md tells the rest.
"""
