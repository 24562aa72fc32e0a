"""The benchmark kit: speed measured in processes of their own, never without quality beside it."""
