"""SAM's self-attention loss around another method (section 5.5)."""
