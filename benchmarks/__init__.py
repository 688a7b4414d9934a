"""The evidence behind the numbers in docs/results.md: tersor against its peers, same weights, bytes on disk."""
