"""The user's own functions and models: found by name, called, copied, and their errors told in one line."""
