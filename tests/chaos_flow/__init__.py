"""Long checks of the flow: kills, cancellations, and the two doors. `python -m tests.chaos_flow --help`."""
