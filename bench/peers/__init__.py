"""What is measured: holdfast, and what it is measured beside."""
