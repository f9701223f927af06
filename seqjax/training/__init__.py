"""The one training function, and what it keeps on disk."""
