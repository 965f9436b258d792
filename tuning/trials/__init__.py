"""What runs a sweep under Ray Tune."""
