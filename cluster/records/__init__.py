"""What a run says about itself, and what can be read from that."""
