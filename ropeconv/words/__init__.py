"""The words that every other floor speaks: layouts, rows, dtypes, RoPE settings, errors, events."""
