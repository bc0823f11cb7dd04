"""Text to rows: documents of a mix's sources, tokenised, packed, permuted and cut into chunks; and back again."""
