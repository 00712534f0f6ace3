"""The training loop: its stages and losses, its checkpoints, its evaluation."""
