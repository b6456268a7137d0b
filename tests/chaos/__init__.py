"""Training is killed, starved of disk and given damaged checkpoints: it must end with the very bytes of an undisturbed run."""
