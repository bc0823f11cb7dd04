"""What runs inside the sandboxes, on the standard library alone: `program.py` in one, `judge.py` in the other."""
