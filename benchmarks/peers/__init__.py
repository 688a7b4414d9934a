"""The coders that tersor is compared with: one file each, every one with `run(weights, quick) -> list of points`."""
