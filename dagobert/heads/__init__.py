"""One module a task: what stands on the encoder, what it is trained on, and its loss."""
