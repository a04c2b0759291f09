"""The training loop and what it keeps: step, schedule, image buffer, checkpoints, reports."""
