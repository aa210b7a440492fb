"""What lies on disk: whose it is, how it is replaced, how long work is resumed, what other programs left."""
