"""What runs after what, and when. A flow is order only: what a stage is stands in `dagobert`, how it is run in `tasks`."""
