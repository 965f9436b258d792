"""What is computed from the records of a sweep: scores, ranking, importance of fields, cost."""
