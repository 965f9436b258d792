"""The worker group: requested workers, machine selection, machine capacity and the resulting resources."""
