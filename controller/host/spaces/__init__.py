"""The driver of `Spaces`, and the mechanisms that it chooses from."""
