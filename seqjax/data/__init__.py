"""From text to arrays: tokenizers, lanes, splits."""
