"""How good label maps and pictures are, and how sure that is."""
