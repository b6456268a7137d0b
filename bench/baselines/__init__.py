"""What people use instead, at its best settings for the machine, on the same data, model and recipe."""
