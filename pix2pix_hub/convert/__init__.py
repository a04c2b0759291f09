"""From other projects' checkpoints to exports, and from exports to other runtimes."""
