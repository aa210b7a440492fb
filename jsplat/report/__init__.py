"""The page that a run ends with, and the pieces it is made of."""
