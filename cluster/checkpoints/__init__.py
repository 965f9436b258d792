"""When checkpoints are saved, what they contain, and how they are stored."""
