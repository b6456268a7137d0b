"""What keeps the repository itself in order. Run from its root: `python -m tools.NAME`."""
