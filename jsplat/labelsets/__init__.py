"""Which classes a label map knows, and how those of public sets translate into each other."""
