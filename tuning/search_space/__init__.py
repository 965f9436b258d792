"""What may vary between trials."""
