"""Files that nobody would write on purpose, through fetch, clean and split: `python -m tests.fuzz --files 10000`."""
